/**
 * stay MAIN kill|go [MS]: tideover as tideover-hold.service has it, with a service manager that listens. When it is ready, and so many
 * ms after, it is killed, or told that it is time, as tideover-resume.service does; then ends as that. Says in JSON when it was started,
 * when it was ready and when it was told, in ms since 1970.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, sockaddr_un } from '../../../src/abi/socket.ts';
import { bind, recvfrom, socket } from '../../../src/sys/socket.ts';
import { LOCK } from '../../../src/update/alone.ts';
import { sayTime } from '../../../src/update/early.ts';

const [main, how, pause = '0'] = process.argv.slice(2) as [string, 'kill' | 'go', string?];
const manager = '/run/manager';
const sockfd = socket({ domain: AF_UNIX, type: SOCK_DGRAM | SOCK_CLOEXEC, protocol: 0 });
const sun_path = new Uint8Array(108);
sun_path.set(Buffer.from(manager));
const addr = sockaddr_un.write({ sun_family: AF_UNIX, sun_path }).subarray(0, 3 + manager.length);
bind({ sockfd, addr, addrlen: addr.length });

const started = Date.now();
const child = spawn(process.execPath, [main, 'update', 'resume', '--hold', '--stay'], {
  env: { ...process.env, NOTIFY_SOCKET: manager },
  stdio: ['ignore', 'ignore', 'inherit'],
});
const ended = new Promise((resolve) => child.on('exit', (status, signal) => resolve(signal ?? status)));
const buf = new Uint8Array(64);
const got = recvfrom({ sockfd, buf, len: buf.length, flags: 0, src_addr: 0, addrlen: 0 });
const ready = Date.now();
assert.equal(Buffer.from(buf.subarray(0, got)).toString(), 'READY=1\n');
assert.ok(existsSync('/run/tideover/held'));
await sleep(Number(pause));
const told = Date.now();
if (how === 'kill') process.kill(child.pid!, 'SIGKILL');
else execFileSync('sh', ['-c', sayTime(LOCK)]);
assert.equal(await ended, how === 'kill' ? 'SIGKILL' : 0);
console.log(JSON.stringify({ started, ready, told }));
