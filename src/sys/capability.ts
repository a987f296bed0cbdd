/** Privileges of a process: capget(2), capabilities(7). */
import * as abi from '../abi/capability.ts';
import { input, output, syscall } from './syscall.ts';

/** @param hdrp a __user_cap_header_struct @param datap two of __user_cap_data_struct */
export const capget = syscall('capget', 125, { hdrp: input, datap: output });

/** Masks in which capability n is bit n. */
export interface Capabilities {
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
}

/** @param pid 0 is the calling thread */
export function capabilities(pid = 0): Capabilities {
  const hdrp = abi.__user_cap_header_struct.write({ version: abi._LINUX_CAPABILITY_VERSION_3, pid });
  const datap = new Uint8Array(2 * abi.__user_cap_data_struct.size);
  capget({ hdrp, datap });
  const low = abi.__user_cap_data_struct.read(datap);
  const high = abi.__user_cap_data_struct.read(datap, abi.__user_cap_data_struct.size);
  const join = (a: number, b: number) => BigInt(a) | (BigInt(b) << 32n);
  return {
    effective: join(low.effective, high.effective),
    permitted: join(low.permitted, high.permitted),
    inheritable: join(low.inheritable, high.inheritable),
  };
}

/** Whether this thread may use a capability now. @param capability CAP_* */
export function hasCapability(capability: number): boolean {
  return ((capabilities().effective >> BigInt(capability)) & 1n) === 1n;
}
