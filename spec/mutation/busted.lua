-- The specs of the core, with the faulty module of the folder that MUTANT names.
return {
  default = { lpath = "lua/?.lua;lua/?/init.lua;./?.lua", cpath = os.getenv "MUTANT" .. "/?.so;build/?.so", pattern = "_spec" },
}
