/** `1 process`, `3 processes`. */
export function count(number: number, what: string, plural = 's'): string {
  return `${number} ${what}${number === 1 ? '' : plural}`;
}
