// Package export_weirmq_plugin_guest is what every plugin exports. The generated code finds it by its name.
package export_weirmq_plugin_guest

import (
	"fmt"

	. "go.bytecodealliance.org/pkg/wit/types"
	"wit_component/policy"
	. "wit_component/weirmq_plugin_guest"
)

// Info says who this is.
func Info() PluginInfo {
	return PluginInfo{Name: "example-go", Version: "0.1.0"}
}

// Init reads the configuration. The text of an error is shown to the operator.
func Init(config string) Result[Unit, string] {
	if err := policy.Load(config); err != nil {
		return Err[Unit](err.Error())
	}
	// What is printed goes to the broker's log.
	fmt.Printf("%d templates to publish, %d to subscribe\n", len(policy.Current.Publish), len(policy.Current.Subscribe))
	return Ok[Unit, string](Unit{})
}

// Health says whether it is fit to serve.
func Health() Result[Unit, string] {
	return Ok[Unit, string](Unit{})
}
