import { restore } from '../commands/restore.ts';
import { alone } from './alone.ts';

export { main } from '../app.ts';
export const program = alone(restore);
