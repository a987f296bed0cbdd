/** makedumpfile as Debian has it, to compare with. */
import { run } from './command.ts';
import { fetchPrograms } from './fetched.ts';

export interface Makedumpfile {
  /** `1.7.8` */
  readonly version: string;
  readonly command: readonly [string, ...string[]];
  /** Runs it to its end and returns what it prints. @throws CommandError */
  makedumpfile(...args: string[]): Promise<string>;
}

export async function fetchMakedumpfile(): Promise<Makedumpfile> {
  const { version, command } = await fetchPrograms('makedumpfile');
  const start = command('usr/bin/makedumpfile');
  return { version, command: start, makedumpfile: (...args) => run([...start, ...args]) };
}
