/** Types of memory in an e820 map: arch/x86/include/asm/e820/types.h. */

export const E820_TYPE_RAM = 1;
export const E820_TYPE_RESERVED = 2;
export const E820_TYPE_ACPI = 3;
export const E820_TYPE_NVS = 4;
export const E820_TYPE_UNUSABLE = 5;
export const E820_TYPE_PMEM = 7;
/** Persistent memory as firmware marked it before ACPI 6; a pmem device for whoever has the nd_e820 driver. */
export const E820_TYPE_PRAM = 12;
/** RAM that firmware wants kept for applications: EFI_MEMORY_SP. A dax device. */
export const E820_TYPE_SOFT_RESERVED = 0xefffffff;

/** As e820_type_to_string() of arch/x86/kernel/e820.c spells them in /sys/firmware/memmap. */
const types: Readonly<Record<string, number>> = {
  'System RAM': E820_TYPE_RAM,
  'ACPI Tables': E820_TYPE_ACPI,
  'ACPI Non-volatile Storage': E820_TYPE_NVS,
  'Unusable memory': E820_TYPE_UNUSABLE,
  'Persistent Memory': E820_TYPE_PMEM,
  'Persistent Memory (legacy)': E820_TYPE_PRAM,
  'Soft Reserved': E820_TYPE_SOFT_RESERVED,
};

/** The type that the kernel shows by this name; what it has no name for is reserved, whatever firmware called it. */
export function e820TypeOf(name: string): number {
  return types[name] ?? E820_TYPE_RESERVED;
}
