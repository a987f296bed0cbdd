/**
 * tideover.json: who made an image, on what kernel and machine. CRIU's own files say nothing of it, but for the CPU's
 * features when it was asked to (cpuinfo.img).
 */
import { FormatError, UnsupportedError } from '../errors.ts';

export const INFO_FILE = 'tideover.json';

/** Number of the rules by which an image of ours is made, beyond CRIU's. */
export const IMAGE_FORMAT = 1;

export interface ImageInfo {
  readonly format: number;
  /** Version of tideover. */
  readonly tideover: string;
  /** ISO 8601, UTC. */
  readonly created: string;
  /** As uname(2) has it. */
  readonly kernel: { readonly release: string; readonly version: string };
  /** As uname(2) has it: x86_64. */
  readonly machine: string;
  /** In bytes. */
  readonly pageSize: number;
  readonly cpu: {
    readonly vendor: string;
    readonly model: string;
    /** What programs may use, by the names of /proc/cpuinfo. */
    readonly features: readonly string[];
  };
}

export function infoText(info: ImageInfo): string {
  return `${JSON.stringify(info, undefined, 2)}\n`;
}

/** @throws FormatError where it is no such text, UnsupportedError for a format that came after this program */
export function parseInfo(text: string, file: string): ImageInfo {
  const fail = (field: string, expected: string, found: string): never => {
    throw new FormatError({ file, field, expected, found: found.slice(0, 80) });
  };
  let info: ImageInfo;
  try {
    info = JSON.parse(text);
  } catch (error) {
    return fail('text', 'JSON', (error as Error).message);
  }
  const check = (field: string, value: unknown, type: 'number' | 'string') => {
    if (typeof value !== type) fail(field, `a ${type}`, `${JSON.stringify(value)}`);
  };
  check('format', info?.format, 'number');
  if (info.format !== IMAGE_FORMAT) {
    throw new UnsupportedError({
      what: `image ${file}`,
      why: `it is of format ${info.format}, made by tideover ${info.tideover}, and this program knows ${IMAGE_FORMAT}`,
      remedy: 'use the tideover that made it',
    });
  }
  for (const field of ['tideover', 'created', 'machine'] as const) check(field, info[field], 'string');
  for (const field of ['release', 'version'] as const) check(`kernel.${field}`, info.kernel?.[field], 'string');
  for (const field of ['vendor', 'model'] as const) check(`cpu.${field}`, info.cpu?.[field], 'string');
  check('pageSize', info.pageSize, 'number');
  if (!Array.isArray(info.cpu.features)) fail('cpu.features', 'a list', `${info.cpu.features}`);
  for (const feature of info.cpu.features) check('cpu.features', feature, 'string');
  return info;
}

/**
 * Why a process of this image cannot go on on a machine, one reason each; none where it can.
 * @param here what would be written into an image that is made there
 */
export function incompatibilities(info: ImageInfo, here: Pick<ImageInfo, 'machine' | 'pageSize' | 'cpu'>): string[] {
  const reasons: string[] = [];
  if (info.machine !== here.machine) reasons.push(`the image is of ${info.machine}, this machine is ${here.machine}`);
  if (info.pageSize !== here.pageSize) {
    reasons.push(`pages of the image have ${info.pageSize} bytes, those of this machine ${here.pageSize}`);
  }
  const there = new Set(here.cpu.features);
  const absent = info.cpu.features.filter((feature) => isInstruction(feature) && !there.has(feature));
  if (absent.length > 0) reasons.push(`this CPU lacks ${absent.join(', ')}, which ${info.cpu.model} has`);
  return reasons;
}

/**
 * Features that stand for instructions. The others in /proc/cpuinfo are the kernel's doing and business, with names that come
 * and go between kernels: they say nothing to a program.
 */
export function isInstruction(feature: string): boolean {
  return INSTRUCTIONS.has(feature) || /^(avx|amx|sse|sha|bmi)/.test(feature);
}

/** By the names of Linux' arch/x86/include/asm/cpufeatures.h: what compilers and libraries choose their code by. */
const INSTRUCTIONS: ReadonlySet<string> = new Set(
  [
    'fpu tsc cx8 cmov clflush mmx fxsr syscall mmxext rdtscp lm 3dnowext 3dnow pni pclmulqdq ssse3 fma cx16',
    'movbe popcnt aes xsave f16c rdrand lahf_lm abm misalignsse 3dnowprefetch xop fma4 tbm mwaitx fsgsbase hle erms rtm mpx',
    'rdseed adx clflushopt clwb xsaveopt xsavec xgetbv1 clzero rdpru pku waitpkg gfni vaes vpclmulqdq rdpid',
    'cldemote movdiri movdir64b fsrm serialize tsxldtrk',
  ].flatMap((names) => names.split(' ')),
);
