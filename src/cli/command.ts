/**
 * What a command is, as data. From one tree of these come the parser, the help, the suggestions and docs/cli.md.
 * Nothing here runs or loads a command: `run` imports what it needs when it is called.
 */
import type { ExitCode } from './exit.ts';
import type { Io, Output } from './io.ts';

/**
 * An option. Spelled `--long`, and `--no-long` takes it back.
 * - neither `value` nor `repeat`: a switch
 * - `value`: takes one (`-t PID`, `-tPID`, `--tree PID`, `--tree=PID`); the last one given counts
 * - `repeat`: without a value it counts (`-vv`), with one it collects a list
 */
export interface Flag {
  readonly long: string;
  /** One letter. */
  readonly short?: string;
  /** What the value is called in the help, e.g. `PID`. */
  readonly value?: string;
  /** Its value may be left out, and is this one then: `--manage-cgroups`, `--manage-cgroups=full`. */
  readonly optional?: string;
  /** The values that are taken; the first is the default. */
  readonly choices?: readonly [string, ...string[]];
  readonly repeat?: true;
  /** Is understood and stands in no list. */
  readonly hidden?: true;
  readonly summary: string;
}

export type Flags = Readonly<Record<string, Flag>>;

/** What `run` gets for a flag. */
type FlagValue<F extends Flag> = F extends { choices: readonly (infer C)[] }
  ? C
  : F extends { value: string; repeat: true }
    ? string[]
    : F extends { value: string }
      ? string | undefined
      : F extends { repeat: true }
        ? number
        : boolean;

export type FlagValues<F extends Flags> = { readonly [K in keyof F]: FlagValue<F[K]> };

export interface Argument {
  readonly name: string;
  readonly summary: string;
  readonly optional?: true;
  /** Takes all that follow; only on the last one. */
  readonly variadic?: true;
}

export interface Example {
  readonly line: string;
  readonly does: string;
}

export interface Command<F extends Flags = Flags> {
  readonly name: string;
  readonly aliases?: readonly string[];
  /** Heading of the list in the parent's help under which it stands. */
  readonly group?: string;
  /** One line without a full stop, for lists. */
  readonly summary: string;
  /** Paragraphs, for its own help. */
  readonly description?: readonly string[];
  readonly arguments?: readonly Argument[];
  readonly flags?: F;
  /** What an exit code means here, where more can be said than in the general list. */
  readonly exits?: Partial<Record<ExitCode, string>>;
  readonly examples?: readonly Example[];
  /** A command has commands below it, or something to run, or both: what is none of their names is its first argument. */
  readonly commands?: readonly Command[];
  run?(io: Io, input: Input<F>): Promise<Output>;
}

export interface Input<F extends Flags = Flags> {
  /** By the names that the command gave its flags. */
  readonly flags: FlagValues<F>;
  /** One per declared argument: a text, undefined, or a list for a variadic one. */
  readonly args: readonly (string | undefined | readonly string[])[];
}

/** Declares a command, with its flags' types known to `run`. */
export function command<const F extends Flags>(declared: Command<F>): Command {
  return declared as unknown as Command;
}

/** `<KERNEL>`, `[INITRD...]` */
export function argumentTerm({ name, optional, variadic }: Argument): string {
  const inner = variadic ? `${name}...` : name;
  return optional ? `[${inner}]` : `<${inner}>`;
}

/** `-t, --tree <PID>`, `--manage-cgroups [MODE]` */
export function flagTerm({ short, long, value, optional }: Flag): string {
  const shown = value === undefined ? '' : optional === undefined ? ` <${value}>` : ` [${value}]`;
  return `${short ? `-${short}, ` : ''}--${long}${shown}`;
}
