/** What /proc/kpageflags says of a page: bit numbers of linux/kernel-page-flags.h. */

export const KPF_BUDDY = 10;
export const KPF_HWPOISON = 19;
export const KPF_NOPAGE = 20;
