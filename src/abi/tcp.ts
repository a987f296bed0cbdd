/** States of sockets, also of those that are not TCP: include/net/tcp_states.h; TCP options: include/uapi/linux/tcp.h */

import { struct, u8, u32 } from './struct.ts';

export const TCP_ESTABLISHED = 1;
export const TCP_SYN_SENT = 2;
export const TCP_SYN_RECV = 3;
export const TCP_FIN_WAIT1 = 4;
export const TCP_FIN_WAIT2 = 5;
export const TCP_TIME_WAIT = 6;
export const TCP_CLOSE = 7;
export const TCP_CLOSE_WAIT = 8;
export const TCP_LAST_ACK = 9;
export const TCP_LISTEN = 10;
export const TCP_CLOSING = 11;

export const TCP_NODELAY = 1;
export const TCP_MAXSEG = 2;
export const TCP_CORK = 3;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const TCP_INFO = 11;
export const TCP_REPAIR = 19;
export const TCP_REPAIR_QUEUE = 20;
export const TCP_QUEUE_SEQ = 21;
export const TCP_REPAIR_OPTIONS = 22;
export const TCP_TIMESTAMP = 24;
export const TCP_REPAIR_WINDOW = 29;

/** Values of TCP_REPAIR. */
export const TCP_REPAIR_ON = 1;
export const TCP_REPAIR_OFF = 0;

/** Without the window probe that tells the other end. */
export const TCP_REPAIR_OFF_NO_WP = -1;

/** Values of TCP_REPAIR_QUEUE. */
export const TCP_NO_QUEUE = 0;
export const TCP_RECV_QUEUE = 1;
export const TCP_SEND_QUEUE = 2;

/** An element of TCP_REPAIR_OPTIONS; the codes are those of the options in a header: include/net/tcp.h. */
export const tcp_repair_opt = struct('tcp_repair_opt', 8, { opt_code: u32, opt_val: u32 });
export const TCPOPT_MSS = 2;
export const TCPOPT_WINDOW = 3;
export const TCPOPT_SACK_PERM = 4;
export const TCPOPT_TIMESTAMP = 8;

export const tcp_repair_window = struct('tcp_repair_window', 20, {
  snd_wl1: u32,
  snd_wnd: u32,
  max_window: u32,
  rcv_wnd: u32,
  rcv_wup: u32,
});

export const TCPI_OPT_TIMESTAMPS = 1;
export const TCPI_OPT_SACK = 2;
export const TCPI_OPT_WSCALE = 4;

/** The head of the struct; of a listening socket `tcpi_unacked` is how many wait to be accepted, `tcpi_sacked` the backlog. */
export const tcp_info = struct('tcp_info', 104, {
  tcpi_state: u8,
  tcpi_ca_state: u8,
  tcpi_retransmits: u8,
  tcpi_probes: u8,
  tcpi_backoff: u8,
  /** TCPI_OPT_* */
  tcpi_options: u8,
  /** Low half: of what is sent, high half: of what is received. */
  tcpi_wscale: u8,
  tcpi_flags: u8,
  tcpi_rto: u32,
  tcpi_ato: u32,
  tcpi_snd_mss: u32,
  tcpi_rcv_mss: u32,
  tcpi_unacked: u32,
  tcpi_sacked: u32,
  tcpi_lost: u32,
  tcpi_retrans: u32,
  tcpi_fackets: u32,
  tcpi_last_data_sent: u32,
  tcpi_last_ack_sent: u32,
  tcpi_last_data_recv: u32,
  tcpi_last_ack_recv: u32,
  tcpi_pmtu: u32,
  tcpi_rcv_ssthresh: u32,
  tcpi_rtt: u32,
  tcpi_rttvar: u32,
  tcpi_snd_ssthresh: u32,
  tcpi_snd_cwnd: u32,
  tcpi_advmss: u32,
  tcpi_reordering: u32,
  tcpi_rcv_rtt: u32,
  tcpi_rcv_space: u32,
  tcpi_total_retrans: u32,
});
/** Where the kernel's longer tcp_info has tcpi_segs_out, 32 bits: segments that were ever sent. */
export const TCPI_SEGS_OUT_AT = 136;
