;; WASI for a component that has nothing: what the runtimes of other languages cannot do without, served from the
;; plugin interface alone. Clocks are the broker's, what is printed becomes log entries, there is no argument, no
;; environment, no file and no input. A function that is not here traps.
;;
;; The names of exports leave the version of WASI out; it is put in when the floor is laid (lay.rs).
;;
;; Memory
;;   16    zeros: the empty list, `none` and `ok` of a result are all zeros
;;   64    the answer of check-write: ok(4096)
;;   96    the answer of every read: err(closed)
;;   128   room for an answer that is computed
;;   4096  the unfinished line of standard output, 4096 bytes
;;   8192  the same of standard error
;;   16384 arguments that are lists, and answers that are; one call at a time
(memory (export "memory") 1)
(data (i32.const 72) "\00\10")
(data (i32.const 96) "\01\00\00\00\01")
(global $out_used (mut i32) (i32.const 0))
(global $error_used (mut i32) (i32.const 0))
(global $seed (mut i64) (i64.const 0))

;; Every list is put at the same place: no function here takes two, or keeps one.
(func $room (export "cabi_realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
  (local $pages i32)
  (local.set $pages (i32.add (i32.shr_u (local.get $bytes) (i32.const 16)) (i32.const 2)))
  (if (i32.gt_u (local.get $pages) (memory.size))
    (then
      (if (i32.eq (memory.grow (i32.sub (local.get $pages) (memory.size))) (i32.const -1))
        (then (unreachable)))))
  (i32.const 16384))

;; ---- Streams: 0 is standard input, 1 standard output, 2 standard error.

(func (export "wasi:cli/stdin#get-stdin") (result i32) (call $new_input_stream (i32.const 0)))
(func (export "wasi:cli/stdout#get-stdout") (result i32) (call $new_output_stream (i32.const 1)))
(func (export "wasi:cli/stderr#get-stderr") (result i32) (call $new_output_stream (i32.const 2)))

(func (export "wasi:io/streams#[method]input-stream.read") (param i32 i64) (result i32) (i32.const 96))
(func (export "wasi:io/streams#[method]input-stream.blocking-read") (param i32 i64) (result i32) (i32.const 96))
(func (export "wasi:io/streams#[method]input-stream.subscribe") (param i32) (result i32)
  (call $new_pollable (i32.const 0)))

(func (export "wasi:io/streams#[method]output-stream.check-write") (param i32) (result i32) (i32.const 64))
(func (export "wasi:io/streams#[method]output-stream.write") (param i32 i32 i32) (result i32)
  (call $write (local.get 0) (local.get 1) (local.get 2)) (i32.const 16))
(func (export "wasi:io/streams#[method]output-stream.blocking-write-and-flush") (param i32 i32 i32) (result i32)
  (call $write (local.get 0) (local.get 1) (local.get 2)) (i32.const 16))
(func (export "wasi:io/streams#[method]output-stream.flush") (param i32) (result i32) (i32.const 16))
(func (export "wasi:io/streams#[method]output-stream.blocking-flush") (param i32) (result i32) (i32.const 16))
(func (export "wasi:io/streams#[method]output-stream.subscribe") (param i32) (result i32)
  (call $new_pollable (i32.const 0)))

;; A line becomes a log entry: of standard output with level info, of standard error with level warn.
(func $write (param $stream i32) (param $at i32) (param $bytes i32)
  (local $byte i32)
  (block $done
    (loop $next
      (br_if $done (i32.eqz (local.get $bytes)))
      (local.set $byte (i32.load8_u (local.get $at)))
      (if (i32.eq (local.get $byte) (i32.const 10))
        (then (call $end_line (local.get $stream)))
        (else
          (if (i32.lt_u (local.get $byte) (i32.const 128))
            (then (call $put (local.get $stream) (local.get $byte)))
            (else
              ;; A log entry is UTF-8, and what is printed need not be: \xNN.
              (call $put (local.get $stream) (i32.const 92))
              (call $put (local.get $stream) (i32.const 120))
              (call $put (local.get $stream) (call $hex (i32.shr_u (local.get $byte) (i32.const 4))))
              (call $put (local.get $stream) (call $hex (i32.and (local.get $byte) (i32.const 15))))))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $bytes (i32.sub (local.get $bytes) (i32.const 1)))
      (br $next))))

(func $hex (param $nibble i32) (result i32)
  (i32.add (local.get $nibble)
    (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $nibble) (i32.const 10)))))

(func $used (param $stream i32) (result i32)
  (select (global.get $out_used) (global.get $error_used) (i32.eq (local.get $stream) (i32.const 1))))

(func $set_used (param $stream i32) (param $bytes i32)
  (if (i32.eq (local.get $stream) (i32.const 1))
    (then (global.set $out_used (local.get $bytes)))
    (else (global.set $error_used (local.get $bytes)))))

(func $put (param $stream i32) (param $byte i32)
  (if (i32.ge_u (call $used (local.get $stream)) (i32.const 4096))
    (then (call $end_line (local.get $stream))))
  (i32.store8
    (i32.add (i32.shl (local.get $stream) (i32.const 12)) (call $used (local.get $stream)))
    (local.get $byte))
  (call $set_used (local.get $stream) (i32.add (call $used (local.get $stream)) (i32.const 1))))

(func $end_line (param $stream i32)
  (if (call $used (local.get $stream))
    (then
      (call $log
        (select (i32.const 2) (i32.const 1) (i32.eq (local.get $stream) (i32.const 1)))
        (i32.shl (local.get $stream) (i32.const 12))
        (call $used (local.get $stream)))))
  (call $set_used (local.get $stream) (i32.const 0)))

(func (export "wasi:cli/exit#exit") (param i32)
  (call $end_line (i32.const 1))
  (call $end_line (i32.const 2))
  (unreachable))

;; ---- Clocks. Nothing waits: whoever polls is told that it is time.

(func $wall_clock (export "wasi:clocks/wall-clock#now") (result i32)
  (local $ms i64)
  (local.set $ms (call $now_unix_ms))
  (i64.store (i32.const 128) (i64.div_u (local.get $ms) (i64.const 1000)))
  (i32.store (i32.const 136)
    (i32.mul (i32.wrap_i64 (i64.rem_u (local.get $ms) (i64.const 1000))) (i32.const 1000000)))
  (i32.const 128))
(func (export "wasi:clocks/wall-clock#resolution") (result i32)
  (i64.store (i32.const 128) (i64.const 0))
  (i32.store (i32.const 136) (i32.const 1000000))
  (i32.const 128))
(func (export "wasi:clocks/monotonic-clock#now") (result i64)
  (i64.mul (call $monotonic_us) (i64.const 1000)))
(func (export "wasi:clocks/monotonic-clock#resolution") (result i64) (i64.const 1000))
(func (export "wasi:clocks/monotonic-clock#subscribe-duration") (param i64) (result i32)
  (call $new_pollable (i32.const 0)))
(func (export "wasi:clocks/monotonic-clock#subscribe-instant") (param i64) (result i32)
  (call $new_pollable (i32.const 0)))

(func (export "wasi:io/poll#[method]pollable.ready") (param i32) (result i32) (i32.const 1))
(func (export "wasi:io/poll#[method]pollable.block") (param i32))
(func (export "wasi:io/poll#poll") (param $list i32) (param $count i32) (result i32)
  (local $index i32)
  ;; The indices take the place of the handles, one for one.
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
      (i32.store (i32.add (local.get $list) (i32.shl (local.get $index) (i32.const 2))) (local.get $index))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $next)))
  (i32.store (i32.const 128) (local.get $list))
  (i32.store (i32.const 132) (local.get $count))
  (i32.const 128))

;; ---- Randomness that is none: SplitMix64 from the clock. Good for hash tables, not for secrets.

(func $random (export "wasi:random/random#get-random-u64") (export "wasi:random/insecure#get-insecure-random-u64")
  (result i64)
  (local $mixed i64)
  (if (i64.eqz (global.get $seed))
    (then
      (global.set $seed
        (i64.xor (i64.mul (call $now_unix_ms) (i64.const 0x9e3779b97f4a7c15)) (call $monotonic_us)))))
  (global.set $seed (i64.add (global.get $seed) (i64.const 0x9e3779b97f4a7c15)))
  (local.set $mixed (global.get $seed))
  (local.set $mixed
    (i64.mul
      (i64.xor (local.get $mixed) (i64.shr_u (local.get $mixed) (i64.const 30)))
      (i64.const 0xbf58476d1ce4e5b9)))
  (local.set $mixed
    (i64.mul
      (i64.xor (local.get $mixed) (i64.shr_u (local.get $mixed) (i64.const 27)))
      (i64.const 0x94d049bb133111eb)))
  (i64.xor (local.get $mixed) (i64.shr_u (local.get $mixed) (i64.const 31))))

(func (export "wasi:random/random#get-random-bytes") (export "wasi:random/insecure#get-insecure-random-bytes")
  (param $bytes i64) (result i32)
  (local $at i32) (local $end i32)
  (if (i64.gt_u (local.get $bytes) (i64.const 0x100000)) (then (unreachable)))
  (local.set $at
    (call $room (i32.const 0) (i32.const 0) (i32.const 1) (i32.wrap_i64 (local.get $bytes))))
  (i32.store (i32.const 128) (local.get $at))
  (i32.store (i32.const 132) (i32.wrap_i64 (local.get $bytes)))
  (local.set $end (i32.add (local.get $at) (i32.wrap_i64 (local.get $bytes))))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      ;; The last one may reach beyond the end: there is room.
      (i64.store (local.get $at) (call $random))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br $next)))
  (i32.const 128))

(func (export "wasi:random/insecure-seed#insecure-seed") (result i32)
  (i64.store (i32.const 128) (call $random))
  (i64.store (i32.const 136) (call $random))
  (i32.const 128))

;; ---- There is no environment, no terminal and no file.

(func (export "wasi:cli/environment#get-environment") (result i32) (i32.const 16))
(func (export "wasi:cli/environment#get-arguments") (result i32) (i32.const 16))
(func (export "wasi:cli/environment#initial-cwd") (result i32) (i32.const 16))
(func (export "wasi:cli/terminal-stdin#get-terminal-stdin") (result i32) (i32.const 16))
(func (export "wasi:cli/terminal-stdout#get-terminal-stdout") (result i32) (i32.const 16))
(func (export "wasi:cli/terminal-stderr#get-terminal-stderr") (result i32) (i32.const 16))
(func (export "wasi:filesystem/preopens#get-directories") (result i32) (i32.const 16))
