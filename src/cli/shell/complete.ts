/** What a word of the shell may become. */
import {
  BTF_KIND_ENUM,
  BTF_KIND_ENUM64,
  BTF_KIND_STRUCT,
  BTF_KIND_TYPEDEF,
  BTF_KIND_UNION,
} from '../../crash/kernel/btf.ts';
import type { Command } from '../command.ts';
import type { Session } from './session.ts';

/** So many are shown. */
const MAX_SHOWN = 200;

/** What a command's words are names of. */
const symbols = new Set(['sym', 'dis', 'rd', 'p', 'list', 'vtop', 'search', 'struct']);
const tasks = new Set(['bt', 'ps', 'task', 'files', 'vm', 'foreach']);
const typeFlags = new Set(['-s', '--struct', '-t', '--type', '-o', '--offset']);

export class Completer {
  readonly #session: Session;
  readonly #sorted = new Map<string, readonly string[]>();

  constructor(session: Session) {
    this.#session = session;
  }

  /** @returns words that may stand in the place of the line's last, and that last word: as node:readline wants it */
  complete(line: string): [string[], string] {
    const words = line.split(/\s+/).filter(Boolean);
    const word = /\s$|^$/.test(line) ? '' : words.pop()!;
    if (line.includes('|')) return [[], word];
    const [first, ...others] = words;
    const commands = this.#session.tree.commands!;
    if (first === undefined || (first === 'help' && others.length === 0)) {
      return [starting(commandNames(commands), word), word];
    }
    const command = commands.find(({ name, aliases }) => name === first || aliases?.includes(first));
    if (command === undefined) return [[], word];
    if (word.startsWith('-')) return [starting(flagNames(command), word), word];
    return [this.#words(command.name, others, word), word];
  }

  #words(command: string, before: readonly string[], word: string): string[] {
    // All of them help nobody.
    if (word === '') return [];
    const { kernel } = this.#session;
    const isType =
      typeFlags.has(before.at(-1) ?? '') || (command === 'struct' && before.every((each) => each.startsWith('-')));
    if (isType) return word.includes('.') ? this.#members(word) : starting(this.#types(), word);
    if (command === 'mod')
      return starting(
        this.#once('modules', () => kernel.modules.map(({ name }) => name)),
        word,
      );
    if (tasks.has(command))
      return starting(
        this.#once('tasks', () => kernel.tasks.map(({ comm }) => comm)),
        word,
      );
    if (symbols.has(command)) return starting(this.#symbols(), word);
    return [];
  }

  #symbols(): readonly string[] {
    return this.#once('symbols', () => {
      const { kallsyms, modules } = this.#session.kernel;
      const names = Array.from(kallsyms.sorted(), (i) => kallsyms.name(i));
      for (const { symbols } of modules) {
        for (let i = 1; i < (symbols?.count ?? 0); i++) if (symbols!.isDefined(i)) names.push(symbols!.name(i));
      }
      return names;
    });
  }

  #types(): readonly string[] {
    return this.#once('types', () => {
      const { types, moduleTypes } = this.#session.kernel;
      const kinds = [BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_TYPEDEF] as const;
      return [types, ...moduleTypes.values()].flatMap(({ btf }) =>
        Array.from(btf.named(...kinds), (id) => btf.name(id)),
      );
    });
  }

  /** `task_struct.thread.s`: members of what stands before the last point. */
  #members(word: string): string[] {
    const { types, moduleTypes } = this.#session.kernel;
    const [type = '', ...path] = word.split('.');
    const inner = path.slice(0, -1);
    for (const each of [types, ...moduleTypes.values()]) {
      if (!each.has(type)) continue;
      const id =
        inner.length === 0
          ? each.named(type)
          : each.has(type, inner.join('.'))
            ? each.member(type, inner.join('.')).type
            : undefined;
      if (id === undefined) return [];
      const names = each.btf.members(each.btf.resolve(id)).map(({ name }) => name);
      return starting(
        names
          .filter(Boolean)
          .map((name) => [type, ...inner, name].join('.'))
          .sort(),
        word,
      );
    }
    return [];
  }

  /** Sorted, each once; nothing where the dump does not hold them. */
  #once(what: string, read: () => readonly string[]): readonly string[] {
    let found = this.#sorted.get(what);
    if (found === undefined) {
      const names = this.#session.kernel.gaps.try(what, read) ?? [];
      found = [...new Set(names)].filter((name) => /^[!-~]+$/.test(name)).sort();
      this.#sorted.set(what, found);
    }
    return found;
  }
}

function commandNames(commands: readonly Command[]): string[] {
  return [...commands.flatMap(({ name, aliases = [] }) => [name, ...aliases]), 'help', 'quit'].sort();
}

function flagNames({ flags = {} }: Command): string[] {
  return [...Object.values(flags).filter(({ hidden }) => !hidden), { long: 'json' }, { long: 'help' }]
    .map(({ long }) => `--${long}`)
    .sort();
}

/** Of sorted words those that begin so. Where there are too many to be shown, the last is among them, so that they begin as all do. */
function starting(sorted: readonly string[], word: string): string[] {
  const found = sorted.filter((each) => each.startsWith(word));
  return found.length <= MAX_SHOWN ? found : [...found.slice(0, MAX_SHOWN - 1), found.at(-1)!];
}
