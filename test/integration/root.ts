/** For what only root can do: without root it is skipped, and counted as skipped. */
import { test } from 'node:test';

type Body = NonNullable<Parameters<typeof test>[0]>;

export const isRoot = process.geteuid?.() === 0;

/** Options of a test or a suite that needs root. */
export const asRoot = { skip: isRoot ? false : 'needs root' } as const;

export function rootTest(name: string, body: Body): void {
  void test(name, asRoot, body);
}
