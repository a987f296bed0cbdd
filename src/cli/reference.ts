/** docs/cli.md, from the command tree. */
import { argumentTerm, type Command, type Flag, type Flags } from './command.ts';
import { exitCodes } from './exit.ts';

/** The reference of all commands, in Markdown. */
export function reference(tree: Command, globals: Flags): string {
  return `${[
    `# ${tree.name}: command line`,
    '<!-- Made from the command tree in src/cli by `node scripts/docs.ts`. -->',
    `${tree.summary}.`,
    [
      'The result goes to stdout, progress and log go to stderr. With `--json` stdout holds exactly one JSON document:',
      'the result, or `{"error": {"code", "exit", "message", ...}}`; the message stands on stderr as well.',
      'Text that comes from elsewhere (names, logs) is shown without what could steer a terminal.',
    ].join('\n'),
    [
      'Every long option `--X` is taken back by `--no-X`; of several the last one counts. Short options take their value with or',
      `without a space (\`-t 12\`, \`-t12\`), long ones also with \`=\`. \`${tree.name} help COMMAND\` is \`${tree.name} COMMAND --help\`.`,
      'A first SIGINT or SIGTERM (Ctrl-C) lets a command put things in order, a second one ends it at once.',
    ].join('\n'),
    '## Global options',
    'On every command, before its name or after it.',
    flagTable([
      ...Object.values(globals),
      { long: 'version', short: 'V', summary: 'show the version' },
      { long: 'help', short: 'h', summary: 'show the help, of a command where one is given' },
    ]),
    '## Exit codes',
    codeTable(exitCodes),
    ...commands(tree, []),
  ].join('\n\n')}\n`;
}

function commands(parent: Command, path: readonly string[]): string[] {
  return (parent.commands ?? []).flatMap((command) => {
    const names = [...path, command.name];
    const flags = Object.values(command.flags ?? {}).filter(({ hidden }) => !hidden);
    const parts = [`## ${names.join(' ')}`, `${command.summary}.`];
    if (command.run) {
      const usage = ['tideover', ...names, '[options]', ...(command.arguments ?? []).map(argumentTerm)];
      parts.push(`\`\`\`\n${usage.join(' ')}\n\`\`\``);
    }
    if (command.aliases) parts.push(`Also called ${command.aliases.map((alias) => `\`${alias}\``).join(', ')}.`);
    parts.push(...(command.description ?? []));
    if (command.arguments) {
      const rows = command.arguments.map(({ name, summary }) => [`\`${name}\``, summary]);
      parts.push(markdownTable(['Argument', ''], rows));
    }
    if (flags.length > 0) parts.push(flagTable(flags));
    if (command.exits) parts.push(codeTable(command.exits));
    if (command.examples) {
      const lines = command.examples.map(({ line, does }) => `# ${does}\n${line}`);
      parts.push(`\`\`\`sh\n${lines.join('\n')}\n\`\`\``);
    }
    return [...parts, ...commands(command, names)];
  });
}

function flagTable(flags: readonly Flag[]): string {
  const rows = flags.map((flag) => {
    const short = flag.short ? `\`-${flag.short}\`, ` : '';
    const shown = flag.optional === undefined ? ` ${flag.value}` : `[=${flag.value}]`;
    const value = flag.value ? shown : '';
    const notes = flag.choices ? ` (${flag.choices.join(', ')}; ${flag.choices[0]} if not given)` : '';
    const again = flag.repeat ? ' (may be repeated)' : '';
    return [`${short}\`--${flag.long}${value}\``, `${flag.summary}${notes}${again}`];
  });
  return markdownTable(['Option', ''], rows);
}

function codeTable(codes: Readonly<Record<string, string>>): string {
  return markdownTable(['Exit', ''], Object.entries(codes));
}

export function markdownTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n');
}
