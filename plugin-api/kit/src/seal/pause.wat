;; The clocks and timers of WASI preview 1, for a runtime that looks at them while it must not call the broker.
;;
;; Go makes room for arguments that are handed over to it, and may collect garbage when it does; the collector looks
;; at clocks and at timers. While arguments are handed over a component may call nothing. So its runtime says when
;; that is: then the clocks stand still, at what was read last.
(module
  (import "weirmq:plugin/clock@0.1.0" "now-unix-ms" (func $now_unix_ms (result i64)))
  (import "weirmq:plugin/clock@0.1.0" "monotonic-us" (func $monotonic_us (result i64)))
  (import "env" "memory" (memory 0))
  (global $real_ns (mut i64) (i64.const 0))
  (global $monotonic_ns (mut i64) (i64.const 0))
  (global $paused (mut i64) (i64.const 0))

  (func (export "adapter_monotonic_clock_set_paused") (param $paused i32)
    (global.set $paused (i64.extend_i32_u (local.get $paused))))

  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $answer i32) (result i32)
    ;; There are no others than 0, the time of day, and 1: 28 is EINVAL.
    (if (i32.gt_u (local.get $clock) (i32.const 1)) (then (return (i32.const 28))))
    (if (i64.eqz (global.get $paused))
      (then
        (if (local.get $clock)
          (then (global.set $monotonic_ns (i64.mul (call $monotonic_us) (i64.const 1000))))
          (else (global.set $real_ns (i64.mul (call $now_unix_ms) (i64.const 1000000)))))))
    (i64.store (local.get $answer)
      (select (global.get $monotonic_ns) (global.get $real_ns) (local.get $clock)))
    (i32.const 0))

  ;; Nothing waits: it is time for every timer, and every stream is ready. A subscription has 48 bytes, and begins
  ;; with what its event, of 32 bytes, begins with too; at 8 is what it waits for, which the event has at 10.
  (func (export "poll_oneoff")
    (param $subscription i32) (param $event i32) (param $count i32) (param $answer i32) (result i32)
    (i32.store (local.get $answer) (local.get $count))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (i64.store (local.get $event) (i64.load (local.get $subscription)))
        (i64.store offset=8 (local.get $event)
          (i64.shl (i64.load8_u offset=8 (local.get $subscription)) (i64.const 16)))
        (i64.store offset=16 (local.get $event) (i64.const 0))
        (i64.store offset=24 (local.get $event) (i64.const 0))
        (local.set $subscription (i32.add (local.get $subscription) (i32.const 48)))
        (local.set $event (i32.add (local.get $event) (i32.const 32)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.const 0)))
