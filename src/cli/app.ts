/** One run of the program: parse, run, print, exit code. */
import { wantsColor } from './color.ts';
import type { Command } from './command.ts';
import { failure } from './exit.ts';
import { globalFlags } from './globals.ts';
import { createIo, printFailure, printOutput, type Settings, type Streams } from './io.ts';
import { parse } from './parse.ts';

/** @param argv without the names of Node and of the program */
export async function main(argv: readonly string[], streams: Streams, program: Command): Promise<number> {
  const settings: Settings = { json: false, verbose: 0, quiet: false, color: 'auto' };
  const interrupts = new Interrupts();
  try {
    const { stdout, env } = streams;
    const look = {
      // Only help asks. A pipe that is looked at as a stream of Node does not block from then on, which slows images down.
      get width() {
        return Math.min(stdout.isTTY ? (stdout.columns ?? 80) : 80, 100);
      },
      color: () => wantsColor(settings.color, stdout, env),
    };
    const request = parse(program, globalFlags, argv, settings, look);
    if (request.kind === 'show') {
      stdout.write(request.text);
      return 0;
    }
    interrupts.listen();
    const io = createIo(streams, settings, interrupts);
    const output = await request.command.run!(io, request.input);
    printOutput(streams, settings, output);
    return output.exit ?? 0;
  } catch (error) {
    const failed = failure(error);
    printFailure(streams, settings, failed, error);
    return failed.exit;
  } finally {
    interrupts.stop();
  }
}

/** SIGINT and SIGTERM abort the command, which then puts things in order; a second one ends the program at once. */
class Interrupts {
  readonly #controller = new AbortController();
  readonly signal = this.#controller.signal;
  #handler: (() => void) | undefined;

  onInterrupt(handler: () => void): void {
    this.#handler = handler;
  }

  listen(): void {
    process.on('SIGINT', this.#interrupt).on('SIGTERM', this.#interrupt);
  }

  stop(): void {
    process.off('SIGINT', this.#interrupt).off('SIGTERM', this.#interrupt);
  }

  readonly #interrupt = (name: NodeJS.Signals) => {
    if (name === 'SIGINT' && this.#handler !== undefined) {
      this.#handler();
      return;
    }
    if (this.signal.aborted) process.exit(130);
    this.#controller.abort();
  };
}
