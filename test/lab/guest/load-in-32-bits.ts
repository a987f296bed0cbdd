/**
 * Runs in a guest, from a copy of the sources: loads a kernel as if it could not start in 5-level paging, so that the
 * purgatory enters it in 32 bits.
 *
 *     node load-in-32-bits.ts KERNEL INITRD COMMAND-LINE
 */
import { readFileSync } from 'node:fs';
import { readKernel } from '../../../src/kexec/kernelfile.ts';
import { load } from '../../../src/kexec/load.ts';
import { readMachine } from '../../../src/kexec/machine.ts';
import { planLoad } from '../../../src/kexec/plan.ts';

const [kernel, initrd, commandLine] = process.argv.slice(2) as [string, string, string];
const image = { ...readKernel(kernel), entry64: undefined };
load(planLoad({ image, initrd: readFileSync(initrd), commandLine }, readMachine()));
