/** Host and domain name of a UTS namespace: uts_namespaces(7). This thread is in it. */
import { writeFileSync } from 'node:fs';
import type { utsns_entry } from '../image/messages/namespaces.ts';
import type { Value } from '../image/proto.ts';
import { readProcText } from '../sys/proc.ts';

export type Names = Value<typeof utsns_entry>;

const FILES = { nodename: '/proc/sys/kernel/hostname', domainname: '/proc/sys/kernel/domainname' } as const;

export function saveNames(): Names {
  const read = (name: keyof typeof FILES) => readProcText(FILES[name]).replace(/\n$/, '');
  return { nodename: read('nodename'), domainname: read('domainname') };
}

export function restoreNames(names: Names): void {
  for (const name of ['nodename', 'domainname'] as const) writeFileSync(FILES[name], names[name]);
}
