/** How commander's help looks here, and what follows its lists: examples and exit codes. */
import type { Help, Command as Parser } from 'commander';
import { painter } from './color.ts';
import type { Command } from './command.ts';
import { exitCodes } from './exit.ts';
import { wrap } from './text.ts';

/** Styled always: commander takes the styles out again where colour is off. */
const paint = painter(true);

/** The name for commander of a tree that has none, as of a shell. */
export const NAMELESS = ' ';

export const styleHelp: Partial<Help> = {
  commandUsage(parser: Parser) {
    const names: string[] = [];
    for (let at: Parser | null = parser; at !== null; at = at.parent) names.unshift(at.name());
    return [...names.filter((name) => name !== NAMELESS), parser.usage()].join(' ');
  },
  styleTitle: (text) => paint('bold', text),
  styleOptionText: (text) => paint('cyan', text),
  styleSubcommandText: (text) => paint('cyan', text),
  styleArgumentText: (text) => paint('cyan', text),
  subcommandTerm: (parser: Parser) => [parser.name(), ...parser.aliases()].join(', '),
};

/** @param path names from the program's down to the command's */
export function helpAfter(declared: Command, path: readonly string[], { width }: { width: number }): string {
  const lines: string[] = [];
  const list = (title: string, items: readonly (readonly [string, string])[]) => {
    if (items.length === 0) return;
    const termWidth = Math.max(...items.map(([term]) => term.length));
    lines.push('', paint('bold', title));
    for (const [term, text] of items) {
      const [first, ...rest] = wrap(text, Math.max(40, width - termWidth - 4));
      lines.push(`  ${paint('cyan', term)}${' '.repeat(termWidth - term.length)}  ${first}`);
      lines.push(...rest.map((line) => ' '.repeat(termWidth + 4) + line));
    }
  };
  if (declared.examples) lines.push('', paint('bold', 'Examples:'));
  for (const { line, does } of declared.examples ?? []) {
    lines.push(`  ${paint('cyan', line)}`, ...wrap(does, width - 6).map((part) => `      ${part}`));
  }
  const isProgram = path.length === 1;
  list('Exit codes:', Object.entries(isProgram ? exitCodes : (declared.exits ?? {})));
  if (declared.commands) {
    lines.push(
      '',
      ...wrap(`'${[...path.filter(Boolean), 'COMMAND'].join(' ')} --help' tells more about a command.`, width),
    );
  }
  return lines.join('\n');
}
