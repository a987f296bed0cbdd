/**
 * A whole program that is nothing but a batch of system calls: a static ELF file, for where there is neither a shell nor a
 * library, as the first program of an initramfs.
 *
 *     BASE       ELF header, one program header
 *     +128       the runner, and what follows a call that failed
 *     records    one for each call: batch.ts
 *     messages   address and length of one for each call
 *     data       the texts and bytes that arguments point to
 *
 * All of it is one segment, writable and executable, at an address of its own: results are written into the records.
 */
import {
  EI_CLASS,
  EI_DATA,
  EI_NIDENT,
  EI_VERSION,
  ELFCLASS64,
  ELFDATA2LSB,
  ELFMAG,
  Elf64_Ehdr,
  Elf64_Phdr,
  EM_X86_64,
  ET_EXEC,
  EV_CURRENT,
  PF_R,
  PF_W,
  PF_X,
  PT_LOAD,
} from '../abi/elf.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import { align, assemble } from './assemble.ts';
import { Batch, batch_record, performRecords } from './batch.ts';
import { add, jz, lea, mov, shr, sub, syscall, test, xor } from './instructions.ts';
import { eax, edi, label, mem, qword, r12, r13, rbx, rdi, rdx, rsi } from './operands.ts';

/** What an argument points to: a text with its NUL, bytes, or a list of texts that ends with NULL, as execve(2) takes. */
type Pointed = string | Uint8Array | readonly string[];

export interface Call {
  /** Its number: NR. */
  readonly nr: number;
  /** Numbers, what is pointed to, or the result of an earlier call: a descriptor. */
  readonly args: readonly (number | Pointed | { readonly resultOf: Call })[];
  /** Where the program ends when the call fails: what it says on stderr. Without it a failure means nothing. */
  readonly orSay?: string;
}

const BASE = 0x400000;
const CODE = 128;
const STDERR = 2;
const MESSAGE = 16;

/**
 * The program: performs the calls in their order. At one that fails and has something to say it says that, and ends with the
 * errno as its status. It ends with 0 behind the last call.
 */
export function batchProgram(calls: readonly Call[]): Uint8Array {
  const recordsAt = CODE + code(calls.length, BASE).length;
  const messagesAt = recordsAt + calls.length * batch_record.size;
  const dataAt = messagesAt + calls.length * MESSAGE;
  const data: Uint8Array[] = [];
  let end = dataAt;
  const put = (bytes: Uint8Array): number => {
    const address = BASE + end;
    const size = Math.ceil(bytes.length / 8) * 8;
    data.push(bytes, new Uint8Array(size - bytes.length));
    end += size;
    return address;
  };
  const text = (value: string) => put(Buffer.from(`${value}\0`));
  const pointer = (value: Pointed): number => {
    if (typeof value === 'string') return text(value);
    if (value instanceof Uint8Array) return put(value);
    return put(new Uint8Array(new BigUint64Array([...value.map((each) => BigInt(text(each))), 0n]).buffer));
  };

  const batch = new Batch(new Uint8Array(calls.length * batch_record.size));
  const messages = new Uint8Array(calls.length * MESSAGE);
  for (const [i, { nr, args, orSay }] of calls.entries()) {
    const isResult = (arg: Call['args'][number]) => typeof arg === 'object' && 'resultOf' in arg;
    const values = args.map((arg) => (typeof arg === 'number' ? arg : isResult(arg) ? 0 : pointer(arg as Pointed)));
    if (orSay === undefined) batch.add(nr, ...values);
    else batch.addOrStop(nr, ...values);
    for (const [n, arg] of args.entries()) {
      if (isResult(arg)) batch.passResult(calls.indexOf((arg as { resultOf: Call }).resultOf), i, n);
    }
    const message = Buffer.from(orSay ?? '');
    const view = viewOf(messages);
    view.setBigUint64(i * MESSAGE, BigInt(put(message)), true);
    view.setBigUint64(i * MESSAGE + 8, BigInt(message.length), true);
  }
  const body = [code(calls.length, BASE + messagesAt), batch.used, messages, ...data];
  return Buffer.concat([headers(end), ...body]);
}

/** @param messages where their table lies; with any address below 2 GB the code has the same length */
function code(calls: number, messages: number): Uint8Array {
  const [records, done] = [label('records'), label('done')];
  return assemble(
    lea(rbx, mem({ rip: records })),
    mov(r12, calls),
    performRecords(),
    xor(edi, edi),
    test(r12, r12),
    jz(done),
    // One that ended the batch: rbx is its record.
    mov(rdx, rbx),
    sub(rdx, r13),
    shr(rdx, Math.log2(batch_record.size / MESSAGE)),
    add(rdx, messages),
    mov(rsi, qword({ base: rdx })),
    mov(rdx, qword({ base: rdx, disp: 8 })),
    mov(edi, STDERR),
    mov(eax, NR.write),
    syscall(),
    xor(edi, edi),
    sub(rdi, qword({ base: rbx, disp: batch_record.offsets.ret })),
    done,
    mov(eax, NR.exit_group),
    syscall(),
    align(batch_record.size),
    records,
  ).bytes;
}

function headers(size: number): Uint8Array {
  const bytes = new Uint8Array(CODE);
  const e_ident = new Uint8Array(EI_NIDENT);
  e_ident.set(Buffer.from(ELFMAG, 'latin1'));
  [e_ident[EI_CLASS], e_ident[EI_DATA], e_ident[EI_VERSION]] = [ELFCLASS64, ELFDATA2LSB, EV_CURRENT];
  Elf64_Ehdr.write(
    {
      e_ident,
      e_type: ET_EXEC,
      e_machine: EM_X86_64,
      e_version: EV_CURRENT,
      e_entry: BigInt(BASE + CODE),
      e_phoff: BigInt(Elf64_Ehdr.size),
      e_ehsize: Elf64_Ehdr.size,
      e_phentsize: Elf64_Phdr.size,
      e_phnum: 1,
    },
    bytes,
  );
  const segment = {
    p_type: PT_LOAD,
    p_flags: PF_R | PF_W | PF_X,
    p_offset: 0n,
    p_vaddr: BigInt(BASE),
    p_paddr: BigInt(BASE),
    p_filesz: BigInt(size),
    p_memsz: BigInt(size),
    p_align: 4096n,
  };
  Elf64_Phdr.write(segment, bytes, Elf64_Ehdr.size);
  return bytes;
}
