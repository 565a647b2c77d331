/** A steady beat for drawing. A worker's timers keep their pace when the page's tab is in the background. */
const port = self as unknown as { postMessage(message: number): void; onmessage: ((event: MessageEvent<number>) => void) | null };
let timer: ReturnType<typeof setInterval> | undefined;
let count = 0;
port.onmessage = ({ data: fps }) => {
  clearInterval(timer);
  timer = setInterval(() => port.postMessage((count += 1)), 1000 / fps);
};
export {};
