/** Another program in place of this one: execve(2). */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { UsageError } from '../exit.ts';

/** Does not return where there is the program. @param line the program, looked for in PATH if it has no slash, and its arguments */
export function become(line: readonly string[]): void {
  const [name] = line as [string];
  const folders = name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter);
  const program = folders.map((folder) => join(folder, name)).find(isProgram);
  if (program === undefined) throw new UsageError(`${name} is not a program that can be started`);
  process.execve!(program, [...line], process.env as NodeJS.ProcessEnv & Record<string, string>);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
