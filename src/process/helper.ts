/**
 * The process that works for the library (client.ts): tideover in a session of its own, no child of its caller's, with no
 * descriptor that leads there. So it can stop its caller like any other process, and end it.
 *
 *     node helper start FOLDER CALLER LENT PROGRAM ARGUMENTS...  starts the other one, says its process id, and ends
 *     node helper run FOLDER CALLER LENT PROGRAM ARGUMENTS...    waits until its caller is ready, and becomes PROGRAM
 *
 * LENT is how many descriptors, from 3 on, its caller has given it for PROGRAM.
 *
 * In the folder: `ready`, made by the caller; `result` and `log`, what the program says; `exit`, with its exit code, when it ends.
 * The caller removes it, unless it was ended itself.
 */
import { spawn } from 'node:child_process';
import { existsSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { readStat } from '../sys/stat.ts';

type Arguments = [string, string, string, string, string, ...string[]];
const [role, folder, caller, lent, program, ...args] = process.argv.slice(2) as Arguments;

/** As in bin/tideover. */
const NODE = ['--min-semi-space-size=4', '--v8-pool-size=1'];

if (role === 'start') {
  const open = (name: string) => openSync(join(folder, name), 'wx', 0o600);
  const ours = Array.from({ length: Number(lent) }, (_, i) => 3 + i);
  const line = [...NODE, import.meta.filename, 'run', folder, caller, lent, program, ...args];
  const child = spawn(process.execPath, line, {
    detached: true,
    stdio: ['ignore', open('result'), open('log'), ...ours],
  });
  process.stdout.write(`${child.pid}`);
  child.unref();
} else {
  process.on('exit', (code) => {
    if (hasEnded(Number(caller))) {
      rmSync(folder, { recursive: true, force: true });
      return;
    }
    writeFileSync(join(folder, 'exit.new'), `${code}`);
    renameSync(join(folder, 'exit.new'), join(folder, 'exit'));
  });
  while (!existsSync(join(folder, 'ready'))) {
    if (hasEnded(Number(caller))) process.exit(1);
    await setTimeout(10);
  }
  process.argv.splice(1, process.argv.length, program, ...args);
  await import(pathToFileURL(program).href);
}

function hasEnded(pid: number): boolean {
  try {
    return 'ZX'.includes(readStat(pid).state);
  } catch {
    return true;
  }
}
