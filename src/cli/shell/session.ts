/** A dump that is open for many commands: those of `tideover crash`, without the dump's name. */
import type { Kernel } from '../../crash/kernel/kernel.ts';
import { main } from '../app.ts';
import type { Command, Input } from '../command.ts';
import { crash } from '../commands/crash.ts';
import { filesOf, openDumpAt } from '../dump.ts';
import type { Streams } from '../io.ts';
import { inputFlags, vmcore } from '../kernel.ts';

/** What a shell is opened with. */
export interface SessionInput {
  readonly path: string;
  readonly more: readonly string[];
  readonly ram: string | undefined;
}

export class Session {
  readonly kernel: Kernel;
  readonly tree: Command;

  private constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.tree = treeFor(kernel);
  }

  /** @throws FormatError where the dump does not say enough of its kernel, and the system's errors */
  static async open({ path, more, ram }: SessionInput): Promise<Session> {
    const { Kernel } = await import('../../crash/kernel/kernel.ts');
    const source = await openDumpAt(filesOf([path, ...more], { ram }));
    try {
      return new Session(new Kernel(source));
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** One command. What goes wrong with it is said on `streams.stderr`. */
  run(words: readonly string[], streams: Streams): Promise<number> {
    return main(words, streams, this.tree);
  }

  close(): void {
    this.kernel.source.close();
  }
}

/** The commands that look into a dump, with this one's kernel in the place of a name. */
function treeFor(kernel: Kernel): Command {
  const commands = (crash.commands ?? []).filter((each) => each.arguments?.[0] === vmcore);
  return {
    name: '',
    summary: 'The dump is open; "quit" ends the shell',
    description: [
      'Words are parted by spaces, or stand in quotes. "COMMAND | PROGRAM" shows the result through a program such as less or grep, ' +
        '"COMMAND > FILE" and "COMMAND >> FILE" write it to a file. Tab completes commands, symbols and types.',
    ],
    commands: commands.map((each) => ({
      ...each,
      group: 'Commands',
      arguments: each.arguments!.slice(1),
      flags: Object.fromEntries(Object.entries(each.flags ?? {}).filter(([name]) => !Object.hasOwn(inputFlags, name))),
      examples: (each.examples ?? []).map(({ line, does }) => {
        return { line: line.replace(/^tideover crash /, '').replace(/ vmcore\b/, ''), does };
      }),
      run: (io, { flags, args }) => {
        const own = { ...flags, more: [], ram: undefined } as unknown as Input['flags'];
        return each.run!({ ...io, kernel }, { flags: own, args: [kernel.source.file, ...args] });
      },
    })),
  };
}
