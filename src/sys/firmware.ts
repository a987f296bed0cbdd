/**
 * What firmware told the running kernel and a next kernel started from here must be told too: the zero page
 * (/sys/kernel/boot_params), ACPI's root, EFI's tables and runtime memory map (/sys/firmware/efi).
 */
import { existsSync, readdirSync } from 'node:fs';
import { boot_params, EFI64_LOADER_SIGNATURE, efi_memory_desc } from '../abi/bootparam.ts';
import { FormatError } from '../errors.ts';
import { readProc, readProcText } from './proc.ts';

/** What EFI firmware left behind and a next kernel needs to go on using its runtime services. */
export interface EfiHandover {
  /** Physical address of the EFI system table. */
  readonly systab: number;
  readonly memdescVersion: number;
  readonly memdescSize: number;
  /** The runtime memory map with the virtual addresses in use: efi_memory_desc records. */
  readonly memmap: Uint8Array;
  /** Physical addresses, 0 where firmware has none. */
  readonly fwVendor: number;
  readonly configTable: number;
  readonly smbios: number;
}

const EFI = '/sys/firmware/efi';

/** The zero page that the running kernel was started with, or undefined where it does not show it. */
export function runningBootParams(): Uint8Array | undefined {
  const path = '/sys/kernel/boot_params/data';
  return existsSync(path) ? readProc(path) : undefined;
}

/** Physical address of ACPI's RSDP where firmware or boot loader told it, 0 where the kernel finds it by itself. */
export function acpiRsdp(running: Uint8Array | undefined): number {
  const told = running === undefined ? 0 : boot_params.read(running).acpi_rsdp_addr;
  return told || systabEntry('ACPI20') || systabEntry('ACPI');
}

/**
 * Undefined on a machine without EFI and under a kernel that does not use its runtime services.
 *
 * @param running its zero page
 */
export function efiHandover(running: Uint8Array | undefined): EfiHandover | undefined {
  const maps = `${EFI}/runtime-map`;
  if (running === undefined || !existsSync(maps)) return undefined;
  const { efi_info } = boot_params.read(running);
  if (efi_info.efi_loader_signature !== EFI64_LOADER_SIGNATURE || efi_info.efi_memmap_size === 0) return undefined;
  const numbers = readdirSync(maps).map(Number);
  const memmap = new Uint8Array(numbers.length * efi_memory_desc.size);
  for (const [i, number] of numbers.sort((a, b) => a - b).entries()) {
    const field = (name: string) => hexFile(`${maps}/${number}/${name}`);
    const entry = {
      type: Number(field('type')),
      phys_addr: Number(field('phys_addr')),
      virt_addr: field('virt_addr'),
      num_pages: Number(field('num_pages')),
      attribute: field('attribute'),
    };
    efi_memory_desc.write(entry, memmap, i * efi_memory_desc.size);
  }
  return {
    systab: efi_info.efi_systab_hi * 2 ** 32 + efi_info.efi_systab,
    memdescVersion: efi_info.efi_memdesc_version,
    memdescSize: efi_memory_desc.size,
    memmap,
    fwVendor: Number(hexFile(`${EFI}/fw_vendor`)),
    configTable: Number(hexFile(`${EFI}/config_table`)),
    smbios: systabEntry('SMBIOS'),
  };
}

/** Whether the running kernel uses 5-level page tables: it takes the flag away where it does not. */
export function fiveLevelPaging(): boolean {
  return /^flags\s*:.*\bla57\b/m.test(readProcText('/proc/cpuinfo'));
}

/** An address out of /sys/firmware/efi/systab, `NAME=0x...` a line; 0 where it does not stand there. */
function systabEntry(name: string): number {
  const path = `${EFI}/systab`;
  if (!existsSync(path)) return 0;
  const match = new RegExp(`^${name}=(0x[0-9a-f]+)$`, 'm').exec(readProcText(path));
  return match === null ? 0 : Number(match[1]);
}

function hexFile(path: string): bigint {
  const text = readProcText(path).trim();
  if (/^(0x[0-9a-f]+|[0-9]+)$/.test(text)) return BigInt(text);
  throw new FormatError({ file: path, field: 'number', expected: 'a number', found: JSON.stringify(text) });
}
