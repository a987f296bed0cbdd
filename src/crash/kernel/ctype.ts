/** Types written as C. */
import {
  BTF_KIND_ARRAY,
  BTF_KIND_CONST,
  BTF_KIND_ENUM,
  BTF_KIND_ENUM64,
  BTF_KIND_FUNC_PROTO,
  BTF_KIND_FWD,
  BTF_KIND_PTR,
  BTF_KIND_RESTRICT,
  BTF_KIND_STRUCT,
  BTF_KIND_TYPE_TAG,
  BTF_KIND_UNION,
  BTF_KIND_VOLATILE,
  type Btf,
} from './btf.ts';

/** More than C allows of anything that is nested. */
const MAX_DEPTH = 64;
const INDENT = '    ';

const qualifiers: Readonly<Record<number, string>> = {
  [BTF_KIND_CONST]: 'const',
  [BTF_KIND_VOLATILE]: 'volatile',
  [BTF_KIND_RESTRICT]: 'restrict',
};

/** `struct file *`, `int (*)(void *)`: a type, with the name of what has it. */
export function declaration(btf: Btf, type: number, name = '', depth = 0): string {
  if (depth > MAX_DEPTH) return `... ${name}`.trimEnd();
  const target = () => btf.target(type);
  const go = (to: number, inner: string) => declaration(btf, to, inner, depth + 1);
  const kind = btf.kind(type);
  switch (kind) {
    case BTF_KIND_PTR: {
      const to = btf.kind(unqualified(btf, target()));
      return go(target(), to === BTF_KIND_ARRAY || to === BTF_KIND_FUNC_PROTO ? `(*${name})` : `*${name}`);
    }
    case BTF_KIND_ARRAY:
      return go(target(), `${name}[${btf.length(type)}]`);
    case BTF_KIND_FUNC_PROTO: {
      const parameters = btf.members(type).map((each) => (each.type === 0 ? '...' : go(each.type, each.name)));
      return go(target(), `${name}(${parameters.length === 0 ? 'void' : parameters.join(', ')})`);
    }
    case BTF_KIND_CONST:
    case BTF_KIND_VOLATILE:
    case BTF_KIND_RESTRICT:
      // Of a pointer the qualifier stands behind the star.
      if (btf.kind(target()) === BTF_KIND_PTR) return go(target(), `${qualifiers[kind]} ${name}`.trimEnd());
      return `${qualifiers[kind]} ${go(target(), name)}`;
    case BTF_KIND_TYPE_TAG:
      return go(target(), name);
    default:
      return joined(typeName(btf, type, depth), name);
  }
}

/** `struct list_head`, `unsigned int`, `enum { A, B }`, and for a struct without a name what is in it. */
export function typeName(btf: Btf, type: number, depth = 0): string {
  const name = btf.name(type);
  switch (btf.kind(type)) {
    case 0:
      return 'void';
    case BTF_KIND_STRUCT:
    case BTF_KIND_UNION: {
      const keyword = btf.kind(type) === BTF_KIND_STRUCT ? 'struct' : 'union';
      return name === '' ? `${keyword} ${body(btf, type, depth + 1)}` : `${keyword} ${name}`;
    }
    case BTF_KIND_FWD:
      return `${btf.forward(type)} ${name}`;
    case BTF_KIND_ENUM:
    case BTF_KIND_ENUM64:
      return name === '' ? `enum ${enumeratorList(btf, type)}` : `enum ${name}`;
    default:
      return name;
  }
}

/** A named type in full, without a semicolon at the end: `struct list_head { ... }`, `typedef ...`. */
export function definition(btf: Btf, type: number): string {
  const kind = btf.kind(type);
  if (kind === BTF_KIND_STRUCT || kind === BTF_KIND_UNION) {
    const keyword = kind === BTF_KIND_STRUCT ? 'struct' : 'union';
    return joined(keyword, joined(btf.name(type), body(btf, type, 0)));
  }
  if (kind === BTF_KIND_ENUM || kind === BTF_KIND_ENUM64) {
    return joined('enum', joined(btf.name(type), enumeratorList(btf, type)));
  }
  return `typedef ${declaration(btf, btf.target(type), btf.name(type))}`;
}

function body(btf: Btf, type: number, depth: number): string {
  if (depth > MAX_DEPTH) return '{ ... }';
  const lines = btf.members(type).map((member) => {
    const text = declaration(btf, member.type, member.name, depth);
    return `${text}${member.bitSize === 0 ? '' : ` : ${member.bitSize}`};`;
  });
  return `{\n${lines.map((line) => line.replace(/^/gm, INDENT)).join('\n')}\n}`;
}

function enumeratorList(btf: Btf, type: number): string {
  return `{ ${btf
    .enumerators(type)
    .map(({ name, value }) => `${name} = ${value}`)
    .join(', ')} }`;
}

function unqualified(btf: Btf, type: number): number {
  let at = type;
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const kind = btf.kind(at);
    if (qualifiers[kind] === undefined && kind !== BTF_KIND_TYPE_TAG) break;
    at = btf.target(at);
  }
  return at;
}

function joined(type: string, name: string): string {
  return name === '' ? type : `${type} ${name}`;
}
