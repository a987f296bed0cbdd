/** Timers, and files by way of a thread pool, until SIGTERM. */
import { readFile, writeFile } from 'node:fs/promises';

let [n, good, term] = [0, true, false];
process.on('SIGTERM', () => {
  term = true;
});
const hour = setTimeout(() => {
  good = false;
}, 3600_000);
const timer = setInterval(async () => {
  const mine = ++n;
  await writeFile(`counter${mine}`, String(mine));
  if ((await readFile(`counter${mine}`, 'utf8')) !== String(mine)) good = false;
  if (!term || n <= 5) return;
  clearInterval(timer);
  clearTimeout(hour);
  const code = await crypto.subtle.digest('SHA-256', new Uint8Array(1 << 20));
  console.log(good && code.byteLength === 32 ? 'ok' : 'faults');
}, 10);
console.log('ready');
