/**
 * Debian's order of package versions (deb-version(7)): below 0 when `a` is the older one. Epoch, upstream version and
 * revision are compared one after the other, each as alternating texts and numbers.
 */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)];
  for (let at = 0; at < left.length; at++) {
    const order = comparePart(left[at]!, right[at]!);
    if (order !== 0) return order;
  }
  return 0;
}

/** `[epoch:]upstream[-revision]` */
function partsOf(version: string): [epoch: string, upstream: string, revision: string] {
  const [, epoch = '0', upstream = '', revision = ''] = /^(?:(\d+):)?(.*?)(?:-([^-]*))?$/.exec(version)!;
  return [epoch, upstream, revision];
}

function comparePart(a: string, b: string): number {
  const [left, right] = [alternating(a), alternating(b)];
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const [one, other] = [left[at] ?? '', right[at] ?? ''];
    const order = at % 2 === 0 ? compareText(one, other) : Number(one) - Number(other);
    if (order !== 0) return order;
  }
  return 0;
}

/** Texts at even places, numbers at odd ones; the first text may be empty. */
function alternating(part: string): string[] {
  const pieces: string[] = part.match(/\d+|\D+/g) ?? [];
  return /^\d/.test(part) ? ['', ...pieces] : pieces;
}

function compareText(a: string, b: string): number {
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const order = weight(a[at]) - weight(b[at]);
    if (order !== 0) return order;
  }
  return 0;
}

/** '~' stands before the end of a text, and letters before everything else. */
function weight(character: string | undefined): number {
  if (character === undefined) return 0;
  if (character === '~') return -1;
  return /[A-Za-z]/.test(character) ? character.charCodeAt(0) : character.charCodeAt(0) + 256;
}
