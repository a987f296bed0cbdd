import assert from 'node:assert/strict';

export interface Member {
  name: string;
  mode: number;
  data: string;
  rdev: [number, number];
}

/** Reads a cpio archive as buffer-format.rst has it, by the letter. */
export function readNewc(archive: Uint8Array): Member[] {
  const text = Buffer.from(archive).toString('latin1');
  const members: Member[] = [];
  for (let at = 0; ; ) {
    assert.equal(text.slice(at, at + 6), '070701');
    const field = (i: number) => Number.parseInt(text.slice(at + 6 + 8 * i, at + 14 + 8 * i), 16);
    const nameEnd = at + 110 + field(11);
    assert.equal(text[nameEnd - 1], '\0');
    const name = text.slice(at + 110, nameEnd - 1);
    const start = (nameEnd + 3) & ~3;
    assert.equal(field(4), 1);
    if (name === 'TRAILER!!!') {
      assert.match(text.slice(start), /^\0*$/);
      return members;
    }
    members.push({ name, mode: field(1), data: text.slice(start, start + field(6)), rdev: [field(9), field(10)] });
    at = (start + field(6) + 3) & ~3;
  }
}
