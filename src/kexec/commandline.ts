/** Kernel command lines: the running kernel's as a base for the next one's. */

/** What a boot loader or a kexec put there for one boot only. */
const forOneBoot = /^(BOOT_IMAGE|initrd|kexec_jump_back_entry|elfcorehdr|tideover\.back)=/;

/** Parameters separated by blanks; a double quote keeps blanks together, as next_arg() of lib/cmdline.c reads it. */
export function parameters(commandLine: string): string[] {
  return commandLine.match(/(?:"[^"]*"?|[^\s"])+/g) ?? [];
}

/** The running kernel's command line without what a boot loader added, followed by `append`. */
export function reuseCommandLine(running: string, append: string): string {
  return [...parameters(running).filter((parameter) => !forOneBoot.test(parameter)), ...parameters(append)].join(' ');
}

/** What is for the running system only, or takes memory that a second kernel does not have. */
const NOT_THERE =
  /^(BOOT_IMAGE|initrd|crashkernel|hugepages|hugepagesz|default_hugepagesz|hugetlb_cma|cma|memmap|mem|root|rootflags|rootfstype|rootwait|ro|rw|init|rdinit|resume|quiet|splash|panic|nr_cpus|maxcpus|kho|liveupdate|isolcpus|nohz_full|elfcorehdr|kexec_jump_back_entry|systemd\..*|rd\..*|lab\..*|tideover\..*)(=|$)/;

/**
 * For a kernel that lives in memory of its own: ACPI tells it too of the memory that was added to the running machine, and without this word
 * it takes that for its own (acpi_memory_hotplug_init() of drivers/acpi/acpi_memhotplug.c).
 */
export const OWN_MEMORY_ONLY = 'acpi_no_memhotplug';

/** Of the running kernel's command line what a second kernel in memory of its own needs too: consoles, and what its hardware needs. */
export function hardwareParameters(running: string): string[] {
  return parameters(running).filter((word) => !NOT_THERE.test(word));
}
