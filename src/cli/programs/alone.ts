/**
 * Programs that have one command, under the name that it has in the whole program. The build makes one file of each, with all
 * that the command needs (scripts/build.ts): for those that are waited for with something stopped, and the quickest.
 */
import type { Command } from '../command.ts';

/** @param parents names of the commands that it is under, from the first */
export function alone(command: Command, ...parents: string[]): Command {
  return ['tideover', ...parents].reduceRight((below, name) => ({ name, summary: '', commands: [below] }), command);
}
