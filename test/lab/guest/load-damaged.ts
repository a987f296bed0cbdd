/**
 * Runs in a guest, from a copy of the sources: loads a kernel in which one byte was changed after the purgatory was told
 * its digest.
 *
 *     node load-damaged.ts KERNEL COMMAND-LINE SEGMENT
 */
import { readKernel } from '../../../src/kexec/kernelfile.ts';
import { load } from '../../../src/kexec/load.ts';
import { readMachine } from '../../../src/kexec/machine.ts';
import { planLoad } from '../../../src/kexec/plan.ts';

const [kernel, commandLine, name] = process.argv.slice(2) as [string, string, string];
const initrd = new Uint8Array(100_000).fill(1);
const plan = planLoad({ image: readKernel(kernel), initrd, commandLine }, readMachine());
const segment = plan.segments.find((each) => each.name === name)!;
const at = Math.floor(segment.bytes.length / 2);
segment.bytes[at] = segment.bytes[at]! ^ 0x10;
load(plan);
