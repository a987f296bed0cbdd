/** Machine code as text, in the AT&T syntax of objdump and crash. The disassembler is loaded when the first code is shown. */
import { UnsupportedError } from '../../errors.ts';

export interface Instruction {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly text: string;
  /** Where a jump or call leads, or what an operand relative to the instruction refers to. */
  readonly target: bigint | undefined;
  /** False for bytes that are no instruction. */
  readonly valid: boolean;
}

/** @throws UnsupportedError where the package iced-x86 is not installed */
export async function disassembler(): Promise<(code: Uint8Array, address: bigint) => Generator<Instruction>> {
  const iced = await import('iced-x86').catch((error: unknown) => {
    throw new UnsupportedError({
      what: 'disassembling',
      why: `the package iced-x86 cannot be loaded (${(error as Error).message.split('\n')[0]})`,
      remedy: 'install tideover by npm, which brings it; the one file for guests has none',
    });
  });
  const { Decoder, DecoderOptions, FlowControl, Formatter, FormatterSyntax } = iced;
  return function* (code, address) {
    const decoder = new Decoder(64, code, DecoderOptions.None);
    const formatter = new Formatter(FormatterSyntax.Gas);
    formatter.uppercaseHex = false;
    decoder.ip = address;
    try {
      for (let at = 0; decoder.canDecode; ) {
        const instruction = decoder.decode();
        try {
          const isBranch = [
            FlowControl.Call,
            FlowControl.ConditionalBranch,
            FlowControl.UnconditionalBranch,
            FlowControl.XbeginXabortXend,
          ].includes(instruction.flowControl);
          const near = isBranch ? instruction.nearBranchTarget : 0n;
          const relative = instruction.isIpRelMemoryOperand ? instruction.ipRelMemoryAddress : 0n;
          const { length } = instruction;
          yield {
            address: address + BigInt(at),
            bytes: code.slice(at, at + length),
            text: formatter.format(instruction),
            target: near || relative || undefined,
            valid: !instruction.isInvalid,
          };
          at += length;
        } finally {
          instruction.free();
        }
      }
    } finally {
      formatter.free();
      decoder.free();
    }
  };
}
