// A wire between a page and a node that loses what a test tells it to, and writes down what it carried.
//
//   page --UDP--> wire --UDP--> node      the page learns the wire's port in place of the node's: from the answer to its offer
//
// What is encrypted stays so: an RTP packet's header, which tells its stream and number, goes in clear.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** The stream and the number of an RTP packet, or null: something else goes over the wire. */
export function header(packet) {
  const kind = packet[1] & 0x7f;
  if (packet.length < 12 || packet[0] >> 6 !== 2 || (kind >= 64 && kind < 96)) return null;
  return { ssrc: packet.readUInt32BE(8), number: packet.readUInt16BE(2) };
}

/**
 * Puts a wire between this person's page and whatever node it watches at. `loses(header)` says of each RTP packet on its way
 * to the page whether it gets lost. Gives `{ streams, end }`: by SSRC what came by, as numbers, and the SDP's pairs of streams.
 */
export async function through(person, loses) {
  const front = createSocket('udp4');
  const back = createSocket('udp4');
  front.bind(0, '127.0.0.1');
  back.bind(0, '127.0.0.1');
  await Promise.all([once(front, 'listening'), once(back, 'listening')]);
  const wire = { carried: new Map(), lost: 0, pairs: [], end: () => { front.close(); back.close(); } };
  let page;
  let node;
  front.on('message', (packet, from) => {
    page = from;
    if (node) back.send(packet, node, '127.0.0.1');
  });
  back.on('message', (packet) => {
    const rtp = header(packet);
    if (rtp) {
      const numbers = wire.carried.get(rtp.ssrc) ?? [];
      wire.carried.set(rtp.ssrc, numbers);
      numbers.push(rtp.number);
      if (loses(rtp, wire)) {
        wire.lost += 1;
        return;
      }
    }
    if (page) front.send(packet, page.port, page.address);
  });
  await person.context.route('**/whep/**', async (route) => {
    if (route.request().method() !== 'POST') return route.fallback();
    const response = await route.fetch();
    const answer = await response.text();
    node = Number(/^a=candidate:\S+ 1 udp \d+ \S+ (\d+) /im.exec(answer)?.[1]);
    wire.pairs = [...answer.matchAll(/^a=ssrc-group:FID (\d+) (\d+)/gm)].map(([, first, again]) => ({ first: Number(first), again: Number(again) }));
    return route.fulfill({ response, body: answer.replaceAll(` ${node} typ host`, ` ${front.address().port} typ host`) });
  });
  return wire;
}
