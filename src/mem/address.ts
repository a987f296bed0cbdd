/** Sizes of pages, in bytes. */

export const PAGE_SIZE = 4096;
/** What one entry of a page middle directory maps: a huge page. */
export const PMD_SIZE = 2 ** 21;
