import { dmesg } from '../commands/crash/dmesg.ts';
import { alone } from './alone.ts';

export { main } from '../app.ts';
export const program = alone(dmesg, 'crash');
