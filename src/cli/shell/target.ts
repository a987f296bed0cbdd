/** Where the result of one command of the shell goes. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import type { Line } from './line.ts';

export interface Target {
  write(text: string): void;
  /** Once a program that reads it has ended, too. */
  close(): Promise<void>;
}

/** @throws the system's error where the file cannot be written */
export function openTarget(to: NonNullable<Line['to']>): Target {
  if (to.kind === 'file') {
    const fd = openSync(to.path, to.append ? 'a' : 'w', 0o600);
    return { write: (text) => writeFileSync(fd, text), close: async () => closeSync(fd) };
  }
  const program = spawn('sh', ['-c', to.command], { stdio: ['pipe', 'inherit', 'inherit'] });
  const ended = new Promise<void>((resolve, reject) => program.once('close', () => resolve()).once('error', reject));
  // It may have read enough.
  program.stdin.on('error', () => {});
  return {
    write: (text) => void program.stdin.write(text),
    close() {
      program.stdin.end();
      return ended;
    },
  };
}
