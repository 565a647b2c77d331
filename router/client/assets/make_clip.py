#!/usr/bin/env python3
"""Makes clip.ivf: the loop that the synthetic seller publishes.

A lamp turns on a table before a moving light, with the picture's number written large, so that a person sees at a
glance whether video moves; and the same number as a bar code, so that a test reads it from the decoded picture.

The bar code lies at the bottom left: 24 blocks of 16x16 pixels in one row, the first at (16, 328), in picture
coordinates of 640x360. White is 1 (luma over 128), black is 0. From left to right:

    1 0          start: a reader that finds something else has no picture of ours
    16 bits      the picture's number, highest bit first; 0 .. PICTURES-1, then again from 0
    4 bits       check: the sum of the number's four nibbles, modulo 16, highest bit first
    1 0          end

Read a block by the mean of its inner 8x8 pixels. The blocks keep their places when the picture is scaled: scale the
coordinates likewise.

Needs Python 3 with Pillow, and ffmpeg with libvpx:  python3 make_clip.py [clip.ivf]
"""

import math
import subprocess
import sys

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 20, 8
PICTURES = RATE * SECONDS
BLOCK, LEFT, TOP = 16, 16, 328


def bars(number):
    check = sum((number >> shift) & 15 for shift in (0, 4, 8, 12)) & 15
    bits = [1, 0]
    bits += [(number >> shift) & 1 for shift in range(15, -1, -1)]
    bits += [(check >> shift) & 1 for shift in range(3, -1, -1)]
    return bits + [1, 0]


def background():
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    for y in range(HEIGHT):
        t = y / HEIGHT
        draw.line([(0, y), (WIDTH, y)], fill=(int(34 + 30 * t), int(38 + 22 * t), int(58 + 12 * t)))
    draw.rectangle([0, 262, WIDTH, HEIGHT], fill=(92, 66, 48))
    for y in (275, 296, 320):
        draw.line([(0, y), (WIDTH, y)], fill=(82, 58, 42), width=2)
    return image


def lamp(draw, turn):
    centre, lean = 320, math.sin(turn) * 26
    draw.ellipse([centre - 62, 268, centre + 62, 296], fill=(40, 34, 34))
    draw.rectangle([centre - 6, 176, centre + 6, 282], fill=(196, 160, 96))
    draw.line([(centre - 3, 178), (centre - 3, 280)], fill=(236, 208, 150), width=2)
    glow = int(206 + 40 * math.sin(turn * 2))
    shade = [(centre - 38 + lean, 96), (centre + 38 + lean, 96), (centre + 84 - lean / 2, 188), (centre - 84 - lean / 2, 188)]
    draw.polygon(shade, fill=(glow, int(glow * 0.82), 120))
    for stripe in range(-3, 4):
        x = centre + math.sin(turn + stripe * 0.45) * 60
        draw.line([(x * 0.45 + centre * 0.55 + lean, 98), (x, 186)], fill=(176, 116, 60), width=4)
    draw.ellipse([centre - 5 + lean, 86, centre + 5 + lean, 98], fill=(226, 190, 120))


def picture(number, base, large, small):
    image = base.copy()
    draw = ImageDraw.Draw(image)
    turn = 2 * math.pi * number / PICTURES * 2
    spot = 320 + 230 * math.cos(2 * math.pi * number / PICTURES)
    draw.ellipse([spot - 40, 40, spot + 40, 72], fill=(72, 76, 104))
    lamp(draw, turn)
    draw.text((24, 20), "RUSHROOM", font=small, fill=(255, 122, 89))
    draw.text((24, 44), "lamp, brass, 1962", font=small, fill=(222, 222, 230))
    draw.text((WIDTH - 24, 16), f"{number:03d}", font=large, fill=(255, 255, 255), anchor="ra")
    draw.rectangle([LEFT - 8, TOP - 8, LEFT + 24 * BLOCK + 8, TOP + BLOCK + 8], fill=(0, 0, 0))
    for index, bit in enumerate(bars(number)):
        x = LEFT + index * BLOCK
        draw.rectangle([x, TOP, x + BLOCK - 1, TOP + BLOCK - 1], fill=(255, 255, 255) if bit else (0, 0, 0))
    return image


def main(path):
    encoder = subprocess.Popen(
        ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}",
         "-r", str(RATE), "-i", "-", "-c:v", "libvpx", "-b:v", "700k", "-maxrate", "900k", "-bufsize", "900k",
         "-g", str(RATE), "-keyint_min", str(RATE), "-auto-alt-ref", "0", "-lag-in-frames", "0",
         "-error-resilient", "1", "-deadline", "good", "-cpu-used", "1", "-pix_fmt", "yuv420p", "-f", "ivf", path],
        stdin=subprocess.PIPE)
    font = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf"
    large, small = ImageFont.truetype(font, 64), ImageFont.truetype(font, 18)
    base = background()
    for number in range(PICTURES):
        encoder.stdin.write(picture(number, base, large, small).tobytes())
    encoder.stdin.close()
    sys.exit(encoder.wait())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "clip.ivf")
