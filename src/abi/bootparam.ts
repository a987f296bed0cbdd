/**
 * The Linux/x86 boot protocol: the setup header inside a bzImage and the "zero page" that a boot loader fills.
 * arch/x86/include/uapi/asm/bootparam.h, setup_data.h; Documentation/arch/x86/boot.rst, zero-page.rst.
 */
import { array, bytes, struct, u8, u16, u32, u64, u64n } from './struct.ts';

/** `HdrS`, in setup_header.header. */
export const SETUP_HEADER_MAGIC = 0x53726448;
/** In setup_header.boot_flag. */
export const BOOT_FLAG = 0xaa55;

/** setup_header.loadflags: the protected-mode kernel belongs at 1 MB or above (a bzImage, not a zImage). */
export const LOADED_HIGH = 1 << 0;
/** setup_header.loadflags: set by the decompressor where it chose addresses at random. */
export const KASLR_FLAG = 1 << 1;
export const KEEP_SEGMENTS = 1 << 6;
export const CAN_USE_HEAP = 1 << 7;

/** setup_header.xloadflags: has a 64-bit entry, 0x200 bytes into the protected-mode kernel. */
export const XLF_KERNEL_64 = 1 << 0;
/** setup_header.xloadflags: kernel, initrd, command line and boot_params may lie above 4 GB. */
export const XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1;
/** setup_header.xloadflags: takes EFI tables that a kexec hands on. */
export const XLF_EFI_KEXEC = 1 << 4;
/** setup_header.xloadflags: may be entered with 5-level paging active. */
export const XLF_5LEVEL = 1 << 5;

/** setup_header.type_of_loader of a loader without a number of its own. */
export const LOADER_TYPE_UNDEFINED = 0xff;

/** Where the setup header begins, in the file and in boot_params. */
export const SETUP_HEADER_OFFSET = 0x1f1;
/** The header ends `jump`'s displacement behind this byte: how a loader learns its length. */
export const SETUP_HEADER_JUMP_END = 0x202;

/** Protocol 2.15, which is the last that added a field. */
export const setup_header = struct(
  'setup_header',
  123,
  {
    setup_sects: u8,
    root_flags: u16,
    syssize: u32,
    ram_size: u16,
    vid_mode: u16,
    root_dev: u16,
    boot_flag: u16,
    jump: u16,
    header: u32,
    version: u16,
    realmode_swtch: u32,
    start_sys_seg: u16,
    kernel_version: u16,
    type_of_loader: u8,
    loadflags: u8,
    setup_move_size: u16,
    code32_start: u32,
    ramdisk_image: u32,
    ramdisk_size: u32,
    bootsect_kludge: u32,
    heap_end_ptr: u16,
    ext_loader_ver: u8,
    ext_loader_type: u8,
    cmd_line_ptr: u32,
    initrd_addr_max: u32,
    kernel_alignment: u32,
    relocatable_kernel: u8,
    min_alignment: u8,
    xloadflags: u16,
    cmdline_size: u32,
    hardware_subarch: u32,
    hardware_subarch_data: u64,
    payload_offset: u32,
    payload_length: u32,
    setup_data: u64,
    pref_address: u64,
    init_size: u32,
    handover_offset: u32,
    kernel_info_offset: u32,
  },
  { packed: true },
);

/** How many entries of the memory map the zero page holds; the rest goes into a SETUP_E820_EXT. */
export const E820_MAX_ENTRIES_ZEROPAGE = 128;

export const boot_e820_entry = struct('boot_e820_entry', 20, { addr: u64n, size: u64n, type: u32 }, { packed: true });

export const efi_info = struct('efi_info', 32, {
  efi_loader_signature: u32,
  efi_systab: u32,
  efi_memdesc_size: u32,
  efi_memdesc_version: u32,
  efi_memmap: u32,
  efi_memmap_size: u32,
  efi_systab_hi: u32,
  efi_memmap_hi: u32,
});

/** `EL64`, in efi_info.efi_loader_signature: EFI64_LOADER_SIGNATURE. */
export const EFI64_LOADER_SIGNATURE = 0x34364c45;

/** The zero page. What a loader only copies from the running kernel's (screen, EDID, EDD) stays bytes here. */
export const boot_params = struct(
  'boot_params',
  4096,
  {
    screen_info: bytes(64),
    apm_bios_info: bytes(20),
    _pad2: bytes(4),
    tboot_addr: u64n,
    ist_info: bytes(16),
    acpi_rsdp_addr: u64n,
    _pad3: bytes(8),
    hd0_info: bytes(16),
    hd1_info: bytes(16),
    sys_desc_table: bytes(16),
    olpc_ofw_header: bytes(16),
    ext_ramdisk_image: u32,
    ext_ramdisk_size: u32,
    ext_cmd_line_ptr: u32,
    _pad4: bytes(112),
    cc_blob_address: u32,
    edid_info: bytes(128),
    efi_info,
    alt_mem_k: u32,
    scratch: u32,
    e820_entries: u8,
    eddbuf_entries: u8,
    edd_mbr_sig_buf_entries: u8,
    kbd_status: u8,
    secure_boot: u8,
    _pad5: bytes(2),
    sentinel: u8,
    _pad6: u8,
    hdr: setup_header,
    _pad7: bytes(0x290 - SETUP_HEADER_OFFSET - setup_header.size),
    edd_mbr_sig_buffer: bytes(16 * 4),
    e820_table: array(boot_e820_entry, E820_MAX_ENTRIES_ZEROPAGE),
    _pad8: bytes(48),
    eddbuf: bytes(6 * 82),
    _pad9: bytes(276),
  },
  { packed: true },
);

/** Head of one node of the list at setup_header.setup_data; `len` bytes of data follow. */
export const setup_data = struct('setup_data', 16, { next: u64n, type: u32, len: u32 });

/** boot_e820_entry records beyond the first 128. */
export const SETUP_E820_EXT = 1;
/** An efi_setup_data: tells the kernel that EFI is in virtual mode already, entered by the kernel before it. */
export const SETUP_EFI = 4;
/** Random bytes for the next kernel's generator. */
export const SETUP_RNG_SEED = 9;
/** A kho_data (kexec handover). */
export const SETUP_KEXEC_KHO = 10;

/** Data of SETUP_EFI: arch/x86/include/asm/efi.h. */
export const efi_setup_data = struct('efi_setup_data', 96, {
  fw_vendor: u64n,
  __unused: u64n,
  tables: u64n,
  smbios: u64n,
  reserved: bytes(64),
});

/** One entry of the memory map that EFI keeps for its runtime services: efi_memory_desc_t in include/linux/efi.h. */
export const efi_memory_desc = struct('efi_memory_desc', 40, {
  type: u32,
  pad: u32,
  phys_addr: u64n,
  virt_addr: u64,
  num_pages: u64n,
  attribute: u64,
});

/** Data of SETUP_KEXEC_KHO. */
export const kho_data = struct('kho_data', 32, {
  fdt_addr: u64n,
  fdt_size: u64n,
  scratch_addr: u64n,
  scratch_size: u64n,
});
