// A way out of the tests' network namespace that leads nowhere. A browser that was not allowed a camera, as every
// shopper's is, offers only the address of its default route (as a name that ends in .local); with loopback alone it
// offers nothing at all, and no video would ever come.
import { execFileSync } from 'node:child_process';

const ip = (line) => execFileSync('ip', line.split(' '), { stdio: 'inherit' });

/** Runs `work` with a default route. Outside a namespace of our own the machine's is taken as it is. */
export async function withRoute(work) {
  if (process.env.RUSHROOM_NETNS !== '1') return work();
  ip('link add out0 type veth peer name out1');
  try {
    ip('addr add 10.99.0.1/24 dev out0');
    ip('link set out0 up');
    ip('link set out1 up');
    ip('route add default via 10.99.0.2 dev out0');
    return await work();
  } finally {
    ip('link del out0');
  }
}
