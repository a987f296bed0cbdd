/** What the kernel had gone through or been given that its makers want to know of: Documentation/admin-guide/tainted-kernels.rst */
import { readTaints, taintText } from '../kernel/identity.ts';
import { addressEvidence, type Scene } from './scene.ts';
import type { Finding } from './verdict.ts';

const meanings: Readonly<Record<string, string>> = {
  P: 'a proprietary module was loaded',
  F: 'a module was loaded by force',
  S: 'the processor is not made for this use',
  R: 'a module was removed by force',
  M: 'the processor reported a machine check',
  B: 'a bad page was found',
  U: 'user space asked for the mark',
  D: 'the kernel had died before, in an oops or BUG',
  A: 'a table of ACPI was replaced',
  W: 'the kernel had warned',
  C: 'a staging driver was loaded',
  I: 'a fault of the firmware was worked around',
  O: 'a module was loaded that was built outside of the kernel',
  E: 'a module was loaded that is not signed',
  L: 'a soft lockup had occurred',
  K: 'the kernel was patched while it ran',
  X: 'the distribution gave it a meaning of its own',
  T: 'it was built with the layout of structs randomized',
  N: 'a test of the kernel was run',
  J: 'user space gave a device a command through fwctl that may harm',
};

export function findTaint({ kernel }: Scene): {
  taint: string;
  modules: readonly string[];
  findings: readonly Finding[];
} {
  const mask = kernel.gaps.try('taints', () => readTaints(kernel)) ?? 0n;
  const taint = taintText(mask);
  if (taint === '') return { taint, modules: [], findings: [] };
  const loaded = (kernel.gaps.try('modules', () => kernel.modules) ?? []).filter(({ taints }) => taints !== 0n);
  const at = kernel.gaps.try('symbols', () => kernel.kallsyms.find('tainted_mask'));
  const by =
    loaded.length === 0
      ? ''
      : `; modules: ${loaded.map(({ name, taints }) => `${name} (${taintText(taints)})`).join(', ')}`;
  const finding: Finding = {
    kind: 'taint',
    weight: 'note',
    text: `the kernel is tainted ${taint}${by}`,
    details: [...taint].map((letter) => `${letter}: ${meanings[letter] ?? 'unknown'}`),
    evidence: [
      ...(at === undefined ? [] : [addressEvidence(at, 'tainted_mask')]),
      ...loaded.map(({ address, name }) => addressEvidence(address, `module ${name}`)),
    ],
  };
  return { taint, modules: loaded.map(({ name }) => name), findings: [finding] };
}
