package policy

import "testing"

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		template, asked string
		want            bool
	}{
		{"devices/{client_id}/#", "devices/c-1/state", true},
		{"devices/{client_id}/#", "devices/c-1", true},
		{"devices/{client_id}/#", "devices/c-1/#", true},
		{"devices/{client_id}/#", "devices/+/state", false},
		{"devices/{client_id}/#", "devices/c-2/state", false},
		{"{principal}/+", "ann/x", true},
		{"{principal}/+", "ann/x/y", false},
		{"{principal}/+", "ann/#", false},
		{"{principal}/+", "ann", false},
		{"a/#", "#", false},
		{"#", "$SYS/uptime", false},
		{"+/x", "$SYS/x", false},
		{"$SYS/#", "$SYS/uptime", true},
	} {
		if got := Covers([]string{c.template}, "ann", "c-1", c.asked); got != c.want {
			t.Errorf("%s covers %s: %v", c.template, c.asked, got)
		}
	}
}

func TestNoNameWidensARight(t *testing.T) {
	for _, name := range []string{"+", "#", "", "a/b"} {
		for _, asked := range []string{"devices/a/b", "devices/x", "other"} {
			if Covers([]string{"devices/{client_id}"}, "ann", name, asked) {
				t.Errorf("%q may use %s", name, asked)
			}
		}
	}
}

func TestAMistakeIsNamed(t *testing.T) {
	for _, config := range []string{`{"publsh":[]}`, `{"publish":["a/#/b"]}`, `{"publish":["a/{user}"]}`, `{"publish":[""]}`, `{"publish":"a"}`} {
		if Load(config) == nil {
			t.Errorf("%s was accepted", config)
		}
	}
}
