/** Loading a kernel, starting it, and jumping into it and back: the public interface, tideover/kexec. */
export { FormatError, SyscallError, TideoverError, UnsupportedError } from '../errors.ts';
export {
  jumpBackHere,
  jumpIntoKernel,
  type KernelFiles,
  type LayoutWishes,
  type Loading,
  loadCaptureKernel,
  loadKernel,
  planCaptureKernel,
  planKernel,
  type SystemCall,
} from './kexec.ts';
export { type KexecStatus, start, status, unload } from './load.ts';
