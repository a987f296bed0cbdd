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
