/** From arguments to a command of the tree and its input, by commander. */
import { Argument as ArgumentParser, CommanderError, Option, Command as Parser } from 'commander';
import { version } from '../version.ts';
import { argumentTerm, type Command, type Flag, type Flags, flagTerm, type Input } from './command.ts';
import { UsageError } from './exit.ts';
import { helpAfter, NAMELESS, styleHelp } from './help.ts';
import type { Settings } from './io.ts';

/** What the arguments ask for: to run a command, or to show a text and end. */
export type Request =
  | { readonly kind: 'run'; readonly command: Command; readonly input: Input }
  | { readonly kind: 'show'; readonly text: string };

/** How help is to look: asked for once the options before it are known. */
export interface HelpLook {
  readonly width: number;
  color(): boolean;
}

type Values = Record<string, unknown>;

/**
 * @param settings gets the global options, also those that stand before an error, so that it is reported as wished
 * @throws UsageError with a suggestion where there is one
 */
export function parse(
  tree: Command,
  globals: Flags,
  argv: readonly string[],
  settings: Settings,
  look: HelpLook,
): Request {
  const words = argv.map(levelOfVerbosity);
  let request: Request | undefined;
  let text = '';
  // They are half of all options, and seldom given.
  const isTakenBack = words.some((word) => word.startsWith('--no-'));
  const build = (declared: Command, parents: readonly string[]): Parser => {
    const parser = new Parser(declared.name || NAMELESS);
    const path = [...parents, declared.name];
    const values: Values = defaults(declared.flags ?? {});
    parser.exitOverride().enablePositionalOptions().summary(declared.summary);
    parser.description([`${declared.summary}.`, ...(declared.description ?? [])].join('\n\n'));
    parser.configureOutput({ writeOut, writeErr, getOutHelpWidth, getErrHelpWidth, getOutHasColors, getErrHasColors });
    parser.configureHelp(styleHelp).addHelpText('after', () => helpAfter(declared, path, look));
    if (declared.aliases) parser.aliases(declared.aliases);
    if (declared.group) parser.helpGroup(`${declared.group}:`);
    for (const argument of declared.arguments ?? []) {
      parser.addArgument(new ArgumentParser(argumentTerm(argument), argument.summary));
    }
    // A command that is not named is only listed. Of the others there are hundreds of options: 15 ms.
    if (parents.length > 0 && ![declared.name, ...(declared.aliases ?? [])].some((name) => argv.includes(name))) {
      return parser;
    }
    addFlags(parser, declared.flags ?? {}, values, isTakenBack);
    parser.optionsGroup('Global options:').commandsGroup('Help:');
    addFlags(parser, globals, settings as unknown as Values, isTakenBack);
    parser.addHelpOption(new Option('-h, --help', 'show this help'));
    if (declared.commands) parser.helpCommand('help [command]', 'show the help of a command');
    if (parents.length === 0) parser.version(version(), '-V, --version', 'show the version');
    for (const child of declared.commands ?? []) parser.addCommand(build(child, path));
    if (declared.run) {
      parser.action((...given: unknown[]) => {
        const args = given.slice(0, declared.arguments?.length ?? 0) as Input['args'];
        request = { kind: 'run', command: declared, input: { flags: values as Input['flags'], args } };
      });
    }
    return parser;
  };
  const writeOut = (part: string) => {
    text += part;
  };
  const writeErr = () => {};
  const getOutHelpWidth = () => look.width;
  const getErrHelpWidth = getOutHelpWidth;
  const getOutHasColors = () => look.color();
  const getErrHasColors = getOutHasColors;

  try {
    build(tree, []).parse(words, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: 'show', text };
    throw new UsageError(usageMessage(error, tree, argv));
  }
  if (!request) throw new UsageError(`no command was given; try '${tree.name} --help'`);
  return request;
}

/** -v4 and --verbosity=4 as CRIU spells it: four times -v. -v0 is none. */
function levelOfVerbosity(word: string, at: number, argv: readonly string[]): string {
  const level = word === '--verbosity' ? '1' : /^(?:-v|--verbosity=)(\d)$/.exec(word)?.[1];
  const literal = argv.indexOf('--');
  if (level === undefined || (literal >= 0 && literal < at)) return word;
  return level === '0' ? '--no-verbose' : `-${'v'.repeat(Number(level))}`;
}

/** Commands from the tree's own down to the one that the arguments are for, as far as it can be told. */
function pathOf(tree: Command, argv: readonly string[]): Command[] {
  const path = [tree];
  for (const word of argv) {
    const child = path.at(-1)!.commands?.find(({ name, aliases }) => name === word || aliases?.includes(word));
    if (child !== undefined) path.push(child);
  }
  return path;
}

function usageMessage(error: CommanderError, tree: Command, argv: readonly string[]): string {
  const commands = pathOf(tree, argv);
  // Its help tells more.
  const path = commands.flatMap(({ name }) => name || []).join(' ');
  const help = path === '' ? 'help' : `${path} --help`;
  if (error.code === 'commander.help') return `a command is missing; try '${help}'`;
  const message = error.message
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replace(/^too many arguments for '.*'\. Expected (\d+) arguments? but got \d+: (.*)$/s, (_, expected, given) =>
      expected === '0'
        ? `takes no argument, and this was given: ${given}`
        : `takes at most ${expected}, and these were given: ${given}`,
    );
  const suggestion = /\n\(Did you mean (?:one of )?(.+)\?\)$/.exec(message);
  if (!suggestion) return `${message}; try '${help}'`;
  const names = suggestion[1]!.split(', ').map((name) => `'${name}'`);
  return `${message.slice(0, suggestion.index)}; did you mean ${names.join(' or ')}?`;
}

function defaults(flags: Flags): Values {
  const values: Values = {};
  for (const [key, flag] of Object.entries(flags)) values[key] = defaultOf(flag);
  return values;
}

/** What a flag is when it is not given, and again after --no-FLAG. */
function defaultOf(flag: Flag): unknown {
  if (flag.repeat) return flag.value ? [] : 0;
  if (flag.value) return flag.choices?.[0];
  return false;
}

/** Values are kept here and not by commander: a global option may stand before a command and after it. */
function addFlags(parser: Parser, flags: Flags, values: Values, isTakenBack: boolean): void {
  for (const [key, flag] of Object.entries(flags)) {
    const option = new Option(flagTerm(flag), flag.summary);
    if (flag.choices) option.choices(flag.choices);
    if (flag.hidden) option.hideHelp();
    parser.addOption(option);
    parser.on(`option:${option.name()}`, (given: string | null | undefined) => {
      const value = given ?? flag.optional;
      if (!flag.repeat) values[key] = value ?? true;
      else if (flag.value) values[key] = [...(values[key] as string[]), value];
      else values[key] = (values[key] as number) + 1;
    });
    if (!isTakenBack) continue;
    const negative = new Option(`--no-${flag.long}`).hideHelp();
    parser.addOption(negative);
    parser.on(`option:${negative.name()}`, () => {
      values[key] = defaultOf(flag);
    });
  }
}
