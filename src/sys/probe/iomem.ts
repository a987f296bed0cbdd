import { UnsupportedError } from '../../errors.ts';
import { type Resource, readIomem } from '../iomem.ts';

/** What /proc/iomem shows; nothing where it hides the addresses. */
export function resources(): Resource[] {
  try {
    return readIomem();
  } catch (error) {
    if (error instanceof UnsupportedError) return [];
    throw error;
  }
}
