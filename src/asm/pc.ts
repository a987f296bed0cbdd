/** Devices of the PC that the purgatory speaks to: text console, interrupt controllers, serial port. */
import { db, dw, type Item } from './assemble.ts';
import { add, call, dec, inb, jmp, jnz, jz, lea, lodsb, loop, mov, movzx, out, ret, test } from './instructions.ts';
import { al, byte, dx, ecx, edi, edx, type Label, label, mem, r8d, rsi, word } from './operands.ts';

type Write = readonly [port: number, value: number];

/** The entries of this file's code, for one assembly of it. All take no arguments but `print`. */
export function pcCode() {
  const [writePorts, resetVga, resetPic, print] = [
    label('write_ports'),
    label('reset_vga'),
    label('reset_pic'),
    label('print'),
  ];
  const items: Item[] = [
    // write_ports(table: rsi, count: ecx)
    ...[writePorts, movzx(edx, word({ base: rsi })), mov(al, byte({ base: rsi, disp: 2 })), out(dx, al), add(rsi, 3)],
    ...[loop(writePorts), ret()],

    resetVga,
    writes(writePorts, vga),
    // The attribute controller takes index and value in turn at one port; this read makes the next an index.
    ...[mov(edx, 0x3da), inb(al, dx)],
    writes(writePorts, vgaAttributes),
    ret(),

    ...[resetPic, writes(writePorts, pic), ret()],
    printText(print),
  ];
  return { items, resetVga, resetPic, print };
}

/** Writes values to ports, in order. The table stands behind a jump, beside the code that uses it. */
function writes(writePorts: Label, list: readonly Write[]): Item[] {
  const [table, after] = [label('table'), label('after_table')];
  return [
    ...[lea(rsi, mem({ rip: table })), mov(ecx, list.length), call(writePorts), jmp(after)],
    ...[table, list.map(([port, value]): Item => [dw(port), db(value)]), after],
  ];
}

/**
 * `print(text: rsi, port: edi)`: NUL-terminated text to the 16550 at I/O base `port`, which the kernel before has set up.
 * A port that never gets ready is given up on: LSR bit 5 says that the transmitter takes a byte.
 */
function printText(entry: Label): Item[] {
  const [next, wait, ready, end] = ['print_next', 'print_wait', 'print_ready', 'print_end'].map((name) => label(name));
  return [
    ...[entry, next!, mov(r8d, 1 << 20)],
    ...[wait!, lea(edx, mem({ base: edi, disp: 5 })), inb(al, dx), test(al, 1 << 5), jnz(ready!)],
    ...[dec(r8d), jnz(wait!)],
    ...[ready!, lodsb(), test(al, al), jz(end!), mov(edx, edi), out(dx, al), jmp(next!)],
    ...[end!, ret()],
  ];
}

/** Registers 0 and up of a device with an index port and its value port beside it. */
function indexed(port: number, values: readonly number[]): Write[] {
  return values.flatMap((value, index): Write[] => [
    [port, index],
    [port + 1, value],
  ]);
}

/**
 * Mode 3, text of 80 x 25 in colour, as a VGA BIOS sets it (IBM VGA technical reference). The font is left as it is in
 * plane 2. Bit 7 of CRTC register 0x11 locks registers 0 to 7 and so is cleared first.
 */
const vga: readonly Write[] = [
  [0x3c2, 0x67],
  ...indexed(0x3c4, [0x03, 0x00, 0x03, 0x00, 0x02]),
  [0x3d4, 0x11],
  [0x3d5, 0x00],
  ...indexed(0x3d4, [
    ...[0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00],
    ...[0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff],
  ]),
  ...indexed(0x3ce, [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff]),
];

/** Palette; mode control, overscan, plane enable, panning, colour select. Index 0x20 gives the palette back to the display. */
const vgaAttributes: readonly Write[] = [
  ...[
    ...[0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f],
    ...[0x0c, 0x00, 0x0f, 0x08, 0x00],
  ].flatMap((value, index): Write[] => [
    [0x3c0, index],
    [0x3c0, value],
  ]),
  [0x3c0, 0x20],
];

/**
 * Two 8259A, cascaded at line 2, at the vectors 0x08 and 0x70 of a BIOS, all lines masked but the cascade. Initialization
 * words 1 to 4, then the masks: 8259A data sheet.
 */
const pic: readonly Write[] = [
  [0x20, 0x11],
  [0xa0, 0x11],
  [0x21, 0x08],
  [0xa1, 0x70],
  [0x21, 1 << 2],
  [0xa1, 2],
  [0x21, 0x01],
  [0xa1, 0x01],
  [0x21, 0xff & ~(1 << 2)],
  [0xa1, 0xff],
];
