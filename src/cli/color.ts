import { styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];

/** Gives a printable text a style, or leaves it as it is where colour is off. */
export type Paint = (style: Style, text: string) => string;

export function painter(enabled: boolean): Paint {
  return enabled ? (style, text) => styleText(style, text, { validateStream: false }) : (_, text) => text;
}

/** `auto` is colour on a terminal, unless NO_COLOR (no-color.org) or TERM=dumb says otherwise. */
export function wantsColor(
  choice: 'auto' | 'always' | 'never',
  stream: { readonly isTTY?: boolean },
  env: Readonly<Record<string, string | undefined>>,
): boolean {
  if (choice !== 'auto') return choice === 'always';
  return stream.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb';
}
