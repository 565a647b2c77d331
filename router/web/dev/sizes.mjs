// Prints what a first visit downloads: every file of dist with its size, plain and gzipped.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';

const dist = new URL('../dist', import.meta.url).pathname;
const walk = (dir) => readdirSync(dir).flatMap((name) => {
  const path = join(dir, name);
  return statSync(path).isDirectory() ? walk(path) : [path];
});
let total = 0;
for (const path of walk(dist).sort()) {
  const body = readFileSync(path);
  const gz = gzipSync(body, { level: 9 }).length;
  total += gz;
  console.log(`${relative(dist, path).padEnd(44)} ${String(body.length).padStart(8)} B ${String(gz).padStart(8)} B gz`);
}
console.log(`${'all'.padEnd(44)} ${''.padStart(10)} ${String(total).padStart(8)} B gz`);
