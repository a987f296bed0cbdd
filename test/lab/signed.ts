/** The certificate that a signed kernel brings along, as a file for the firmware's list of keys to trust. */
import { FormatError } from '../../src/errors.ts';

/** EFI_CERT_X509_GUID: UEFI Specification, 32.4.1. */
const X509 = '\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72';
/** NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS, TIME_BASED_AUTHENTICATED_WRITE_ACCESS: how efivarfs begins a variable. */
const ATTRIBUTES = 0x27;
/** EFI_CERT_TYPE_PKCS7_GUID. */
const PKCS7 = '\x9d\xd2\xaf\x4a\xdf\x68\xee\x49\x8a\xa9\x34\x7d\x37\x56\x65\xa7';
/** Index of the certificate table among the PE's data directories: Microsoft's PE format, "Optional Header Data Directories". */
const CERTIFICATE_TABLE = 4;

/** `db` in efivarfs: EFI_IMAGE_SECURITY_DATABASE_GUID. */
export const DB = '/sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f';

/**
 * What to write to DB so that a kernel signed as this one is trusted: EFI_VARIABLE_AUTHENTICATION_2, whose signature is empty as
 * firmware without a platform key asks for none, and one EFI_SIGNATURE_LIST (UEFI Specification, 8.2.2 and 32.4.1).
 *
 * @param image a signed bzImage
 */
export function trustSignerOf(image: Uint8Array): Buffer {
  const certificate = signerOf(Buffer.from(image.buffer, image.byteOffset, image.byteLength));
  const authentication = Buffer.alloc(16 + 24);
  // EFI_TIME: year, month, day; then WIN_CERTIFICATE_UEFI_GUID: length, revision, type, kind.
  authentication.writeUInt16LE(2026, 0);
  authentication.set([1, 1], 2);
  authentication.writeUInt32LE(24, 16);
  authentication.writeUInt16LE(0x200, 20);
  authentication.writeUInt16LE(0xef1, 22);
  authentication.write(PKCS7, 24, 'latin1');
  // Type, size of the list, of its header and of each entry; the entry begins with an owner, here nobody.
  const list = Buffer.alloc(28 + 16);
  list.write(X509, 0, 'latin1');
  list.writeUInt32LE(28 + 16 + certificate.length, 16);
  list.writeUInt32LE(16 + certificate.length, 24);
  const attributes = Buffer.alloc(4);
  attributes.writeUInt32LE(ATTRIBUTES);
  return Buffer.concat([attributes, authentication, list, certificate]);
}

/** The first certificate of the SignedData (RFC 2315, 9.1) that the signature of a PE file is. */
function signerOf(image: Buffer): Buffer {
  const optional = image.readUInt32LE(0x3c) + 24;
  const directory = optional + 112 + 8 * CERTIFICATE_TABLE;
  const table = image.readUInt32LE(directory);
  if (table === 0) throw new FormatError({ file: 'kernel', field: 'signature', expected: 'one', found: 'none' });
  // WIN_CERTIFICATE: length, revision, type; then ContentInfo, SEQUENCE { OID, [0] { SignedData } }.
  const [contentInfo] = elements(image.subarray(table + 8, table + image.readUInt32LE(table)));
  const [, content] = elements(contentInfo!.content);
  const [signedData] = elements(content!.content);
  // SEQUENCE { version, SET digestAlgorithms, SEQUENCE contentInfo, [0] certificates, ... }
  const certificates = elements(signedData!.content).find(({ tag }) => tag === 0xa0);
  return elements(certificates!.content)[0]!.whole;
}

/** Elements of DER (X.690) that stand one after the other; zeros at the end are filling. */
function elements(bytes: Buffer): { readonly tag: number; readonly whole: Buffer; readonly content: Buffer }[] {
  const found = [];
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    const long = bytes[at + 1]! & 0x80 ? bytes[at + 1]! & 0x7f : 0;
    const start = at + 2 + long;
    const end = start + (long > 0 ? bytes.readUIntBE(at + 2, long) : bytes[at + 1]!);
    found.push({ tag: bytes[at]!, whole: bytes.subarray(at, end), content: bytes.subarray(start, end) });
    at = end;
  }
  return found;
}
