/** What an image that is made here says of its origin. */
import { IMAGE_FORMAT, type ImageInfo } from '../image/info.ts';
import { readMachine } from '../sys/machine.ts';
import { version } from '../version.ts';

export function infoHere(): ImageInfo {
  return { format: IMAGE_FORMAT, tideover: version(), created: new Date().toISOString(), ...readMachine() };
}
