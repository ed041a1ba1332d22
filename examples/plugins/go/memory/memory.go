// Package memory says when garbage is collected.
//
// By itself the collector would run whenever memory is asked for, also while the broker hands arguments over. It
// looks at the clock, and a component may call nothing at that moment: the call would be cut off. So it runs when a
// hook says that it may.
package memory

import (
	"runtime"
	"runtime/debug"
)

// collectEvery is how many calls may pass from one collection to the next.
const collectEvery = 256

var calls int

func init() {
	debug.SetGCPercent(-1)
}

// MayCollect is called at the beginning of every hook.
func MayCollect() {
	if calls++; calls%collectEvery == 0 {
		runtime.GC()
	}
}
